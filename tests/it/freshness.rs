//! Promise 2 and what serves it: no dead link, and looks that come before clients notice.
//!
//! Tests with the system's clock use URLs that live for seconds; the others move the clock by hand.

mod lasting;
mod looks;
mod odd_clocks;
