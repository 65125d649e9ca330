//! The command `uffd-conform`: a shell around the library; in a VM of ours, PID 1.

fn main() -> std::process::ExitCode {
    uffd_harness::cli::main()
}
