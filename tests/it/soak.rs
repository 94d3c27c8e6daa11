//! What takes long: `make soak` runs all of this, and the Makefile says what each part is.

mod fleet;
mod floods;
mod replicas;
