//! The other sides of a measurement, each one thread on one ring: `load generate`, `load origin`, `load relay`.
//! Built on demand by bench/compare, never shipped.

mod generate;
mod origin;
mod relay;
mod ring;

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("generate") => generate::run(),
        Some("origin") => origin::run(),
        Some("relay") => relay::run(),
        _ => ring::exit("usage: load generate|origin|relay OPTIONS; the options stand at the top of tools/load/*.rs"),
    }
}
