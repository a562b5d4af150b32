//! Makes cargo notice a new migration: `embed_migrations!` reads the folder at compile time.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
