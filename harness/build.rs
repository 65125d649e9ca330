//! Lays the program out so that its code and its constants begin at addresses of huge pages and have
//! such pages to themselves: a guest puts them there, see `runner::pages`. The file grows by nothing.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,-z,max-page-size=0x200000");
    println!("cargo::rerun-if-changed=build.rs");
}
