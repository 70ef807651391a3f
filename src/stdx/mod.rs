//! What std lacks; knows neither HTTP nor gateways.
//! Owns: the coarse clock of one core, the source of chance, numbers as text, the comparison of secrets, the heap. Never:
//! blocks, does I/O.

pub mod clock;
pub mod decimal;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod heap;
pub mod random;
pub mod secret;
