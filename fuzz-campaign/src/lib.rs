//! Runs fuzz targets on any toolchain: over their seeds in `fuzz/seeds/`, and over mutations of those.
//!
//! Every input has a number and is made from the seeds and that number alone, so that a run is the same every time. What
//! is run is said from outside:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `FUZZ_FROM` | the number of the first input; 0 unless said. The seeds themselves come first |
//! | `FUZZ_COUNT` | how many inputs to run, instead of what the test says |
//! | `FUZZ_SECONDS` | the same by time |
//! | `FUZZ_INPUT` | runs one input alone, given in hexadecimal digits |
//! | `FUZZ_TRACE` | names each input before it is run: to find one that ends the process |

mod campaign;
mod chance;
mod failure;
mod mutator;
mod watchdog;

pub use campaign::run;
