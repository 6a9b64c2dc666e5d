//! Kills a program that records, lets the power fail, and looks for what it had called durable.
//!
//! The program is this one again with another environment; below it lies a disk that keeps nothing
//! it was not told to synchronise (`disk.c`, `disk.rs`). `CRASH_KILLS` says how often (30; `make
//! crash` says 1000). The promise is: no receipt that was called durable is lost or changed, no two
//! receipts of one sequence are ever called durable, and every run can be continued and verified.

mod child;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod parent;
mod random;

fn main() {
    if let Some(folder) = std::env::var_os(child::FOLDER) {
        return child::main(folder.into());
    }
    #[cfg(target_os = "linux")]
    parent::main();
    #[cfg(not(target_os = "linux"))]
    println!("crash: skipped, the disk that forgets is preloaded and that needs Linux");
}
