//! The `kilofs` program.

fn main() -> std::process::ExitCode {
    kilofs::cli::main()
}
