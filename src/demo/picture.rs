//! Pictures that nobody took: coloured tiles, the same on both sides, drawn from the file's name.
//!
//! The same name gives the same bytes, always; the small form shows the same pattern as the full one. Drawing takes some
//! milliseconds of a processor, so it does not belong on a thread that serves connections.

use bytes::Bytes;
use jpeg_encoder::{ColorType, Encoder};
use sha2::{Digest, Sha256};

/// Side of a full picture (pixels).
const FULL: u16 = 640;

/// Side of a preview (pixels).
const SMALL: u16 = 96;

/// Tiles in a row, the margin on both sides included.
const TILES: usize = 7;

const QUALITY: u8 = 80;

type Color = [u8; 3];

/// The picture in `file` as a JPEG.
pub(super) fn draw(file: &str, small: bool) -> Bytes {
    let side = if small { SMALL } else { FULL };
    let pixels = paint(&Sha256::digest(file), usize::from(side));
    let mut jpeg = Vec::new();
    // Writing to memory does not fail, and the pixels are as many as announced.
    let encoded = Encoder::new(&mut jpeg, QUALITY).encode(&pixels, side, side, ColorType::Rgb);
    debug_assert!(encoded.is_ok());
    jpeg.into()
}

/// `side` times `side` pixels.
fn paint(digest: &[u8], side: usize) -> Vec<u8> {
    let background = pastel(digest[0]);
    let inks = [strong(digest[1]), strong(digest[1].wrapping_add(40))];
    let mut pixels = Vec::with_capacity(side * side * 3);
    for row in 0..TILES {
        let colors: Vec<Color> = (0..TILES).map(|column| tile(digest, row, column, background, inks)).collect();
        let line: Vec<u8> = (0..side).flat_map(|x| colors[x * TILES / side]).collect();
        let (from, to) = ((row * side).div_ceil(TILES), ((row + 1) * side).div_ceil(TILES));
        for _ in from..to {
            pixels.extend_from_slice(&line);
        }
    }
    pixels
}

fn tile(digest: &[u8], row: usize, column: usize, background: Color, inks: [Color; 2]) -> Color {
    let mirrored = column.min(TILES - 1 - column);
    if mirrored == 0 || row == 0 || row == TILES - 1 {
        return background;
    }
    match digest[2 + row * (TILES / 2) + mirrored] {
        0..=127 => background,
        128..=208 => inks[0],
        209.. => inks[1],
    }
}

fn pastel(hue: u8) -> Color {
    wheel(hue).map(|part| 255 - (255 - part) / 4)
}

fn strong(hue: u8) -> Color {
    wheel(hue).map(|part| part - part / 4)
}

/// The rainbow in 256 steps.
fn wheel(hue: u8) -> Color {
    let up = (hue % 85) * 3;
    match hue / 85 {
        0 => [255 - up, up, 0],
        1 => [0, 255 - up, up],
        _ => [up, 0, 255 - up],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_jpeg(bytes: &[u8]) -> bool {
        bytes.starts_with(&[0xFF, 0xD8, 0xFF]) && bytes.ends_with(&[0xFF, 0xD9])
    }

    #[test]
    fn the_same_name_gives_the_same_bytes_and_another_name_others() {
        let ada = draw("1_2_3_n.jpg", true);
        assert!(is_jpeg(&ada) && ada.len() < 8_000, "{} bytes", ada.len());
        assert_eq!(ada, draw("1_2_3_n.jpg", true));
        assert_ne!(ada, draw("1_2_4_n.jpg", true));
    }

    #[test]
    fn a_full_picture_is_larger_and_fits_a_cache() {
        let full = draw("1_2_3_n.jpg", false);
        assert!(is_jpeg(&full) && full.len() < 64_000, "{} bytes", full.len());
        assert!(full.len() > draw("1_2_3_n.jpg", true).len());
    }

    #[test]
    fn left_and_right_are_alike() {
        let pixels = paint(&Sha256::digest("x"), 7);
        for row in pixels.chunks(7 * 3) {
            let mut mirrored: Vec<_> = row.chunks(3).collect();
            mirrored.reverse();
            assert_eq!(mirrored.concat(), row);
        }
    }
}
