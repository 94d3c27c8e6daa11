//! The edge: who gets in, what is understood, and what answers look like on the wire.

mod access;
mod answers;
mod bad_input;
mod cors;
mod devices;
mod directives;
mod figures;
mod odd;
mod revalidation;
mod routes;
mod spellings;
