//! JSON strings as the gateway writes them.
//!
//! Go's encoder escapes `&`, `<` and `>`, and the two line separators of Unicode, beside what every encoder escapes. Answers
//! are to be the gateway's own, byte for byte.

use std::borrow::Cow;

/// Appends the inside of a JSON string, without its quotes.
pub fn escape(json: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        let (plain, escaped) = rest.split_at(at);
        json.push_str(plain);
        let mut characters = escaped.chars();
        match characters.next() {
            Some('"') => json.push_str("\\\""),
            Some('\\') => json.push_str("\\\\"),
            Some('\n') => json.push_str("\\n"),
            Some('\r') => json.push_str("\\r"),
            Some('\t') => json.push_str("\\t"),
            Some(other) => {
                json.push_str("\\u");
                json.push_str(&hex::encode(u16::try_from(u32::from(other)).unwrap_or(0xfffd).to_be_bytes()));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    json.push_str(rest);
}

fn needs_escape(character: char) -> bool {
    matches!(character, '&' | '<' | '>' | '"' | '\\' | '\0'..='\x1f' | '\u{2028}' | '\u{2029}')
}

/// The inverse of [`escape`], for what it wrote.
#[must_use]
pub fn unescape(json: &str) -> Cow<'_, str> {
    if !json.contains('\\') {
        return Cow::Borrowed(json);
    }
    serde_json::from_str(&format!("\"{json}\"")).map_or(Cow::Borrowed(json), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut json = String::new();
        escape(&mut json, text);
        json
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(
            escaped("a&b<c>\"\\\n\u{1}\u{2028}\u{e9}"),
            "a\\u0026b\\u003cc\\u003e\\\"\\\\\\n\\u0001\\u2028\u{e9}"
        );
    }

    proptest! {
        #[test]
        fn every_string_is_read_back(text in ".*") {
            let json = escaped(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap(), text.clone());
            prop_assert_eq!(unescape(&json), text);
        }
    }
}
