//! Compiles every `.proto` file below `saga/v1` and `shop/v1`, without `protoc`.

use std::error::Error;
use std::path::PathBuf;

const FOLDERS: [&str; 2] = ["saga/v1", "shop/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in FOLDERS {
        println!("cargo:rerun-if-changed={folder}");
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    prost_build::Config::new()
        // Opaque payloads are copied out of a record once and shared from then on, so that they do not keep the record; maps
        // have one order, so that equal values have equal bytes.
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
