//! The project's own commands, and what tests share with them: provisioning of Postgres and of Node.

mod figures_check;
mod fuzz;
pub mod mutations;
pub mod node;
pub mod postgres;
pub mod programs;
pub mod soak;
pub mod step;
pub mod verify;
pub mod workspace;
