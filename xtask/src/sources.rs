//! Sizes of files and functions, and the promise at a crate's root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use syn::visit::Visit;

use crate::manifest::Package;

/// A file is read as a whole; tests do not count.
const MAX_FILE_LINES: usize = 500;
/// A function fits on a screen, tests included.
const MAX_FUNCTION_LINES: usize = 70;
/// The line by which a library says what it will never do.
const PROMISE: &str = "Deliberately not in it:";
/// Folders of a package that hold Rust files.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "examples"];

/// What is wrong with the sources of one package.
pub fn check(root: &Path, package: &Package) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        for path in rust_files(&package.folder.join(folder))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let shown = path.strip_prefix(root).unwrap_or(&path);
            complaints.extend(check_file(shown, &text)?);
        }
    }
    complaints.extend(check_root(root, package)?);
    Ok(complaints)
}

/// A library's root says in its documentation what it is and what it will never do; a program alone does so in `main.rs`.
fn check_root(root: &Path, package: &Package) -> anyhow::Result<Option<String>> {
    let source = package.folder.join("src");
    let candidates = [source.join("lib.rs"), source.join("main.rs")];
    let path = candidates.iter().find(|path| path.is_file());
    let path = path.with_context(|| format!("{} has neither src/lib.rs nor src/main.rs", package.name))?;
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok((!has_promise(&text)).then(|| {
        let shown = path.strip_prefix(root).unwrap_or(path);
        format!("{}: the crate's documentation lacks its promise (\"{PROMISE} …\")", shown.display())
    }))
}

fn has_promise(text: &str) -> bool {
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(PROMISE))
}

fn check_file(path: &Path, text: &str) -> anyhow::Result<Vec<String>> {
    let file = syn::parse_file(text).with_context(|| format!("parse {}", path.display()))?;
    let mut complaints = Vec::new();
    let lines = lines_without_tests(&file, text);
    if !is_test_file(path) && lines > MAX_FILE_LINES {
        complaints.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES} (tests apart)", path.display()));
    }
    let mut functions = Functions::default();
    functions.visit_file(&file);
    complaints.extend(functions.long.iter().map(|Function { name, line, lines }| {
        format!("{}:{line}: function {name} has {lines} lines, at most {MAX_FUNCTION_LINES}", path.display())
    }));
    Ok(complaints)
}

fn is_test_file(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new("tests.rs")) || path.components().any(|part| part.as_os_str() == "tests")
}

/// The lines before a `#[cfg(test)] mod …` that ends the file, or all.
fn lines_without_tests(file: &syn::File, text: &str) -> usize {
    match file.items.last() {
        Some(syn::Item::Mod(module)) if is_for_tests(module) => first_line(module).saturating_sub(1),
        _ => text.lines().count(),
    }
}

fn first_line(module: &syn::ItemMod) -> usize {
    module.attrs.first().map_or(module.mod_token.span, |attribute| attribute.pound_token.span).start().line
}

fn is_for_tests(module: &syn::ItemMod) -> bool {
    module.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && matches!(attribute.parse_args::<syn::Ident>(), Ok(word) if word == "test")
    })
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

#[derive(Default)]
struct Functions {
    long: Vec<Function>,
}

impl Functions {
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line + 1 - line;
        if lines > MAX_FUNCTION_LINES {
            self.long.push(Function { name: signature.ident.to_string(), line, lines });
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.note(&function.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, function);
    }
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in folder.read_dir().with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check_file(Path::new(path), text).unwrap()
    }

    fn filler(lines: usize) -> String {
        "const _: u8 = 0;\n".repeat(lines)
    }

    #[test]
    fn a_long_file_is_refused_unless_it_is_a_test() {
        assert!(complaints("a/src/lib.rs", &filler(500)).is_empty());
        assert!(complaints("a/src/lib.rs", &filler(501))[0].contains("501 lines"));
        assert!(complaints("a/tests/all.rs", &filler(501)).is_empty());
        assert!(complaints("a/src/core/tests.rs", &filler(501)).is_empty());
    }

    #[test]
    fn tests_at_the_end_of_a_file_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", filler(100));
        assert!(complaints("a/src/lib.rs", &format!("{}{tests}", filler(450))).is_empty());
        assert_eq!(complaints("a/src/lib.rs", &format!("{tests}{}", filler(450))).len(), 1);
        let no_tests = format!("mod more {{\n{}}}\n", filler(100));
        assert_eq!(complaints("a/src/lib.rs", &format!("{}{no_tests}", filler(450))).len(), 1);
    }

    #[test]
    fn a_long_function_is_refused_wherever_it_is() {
        let body = |lines: usize| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines - 2));
        assert!(complaints("a/src/lib.rs", &body(70)).is_empty());
        assert!(complaints("a/src/lib.rs", &body(71))[0].contains("lib.rs:1: function f has 71 lines"));
        for around in ["impl X", "trait X", "mod x", "#[cfg(test)] mod tests", "fn outer()"] {
            assert!(!complaints("a/src/lib.rs", &format!("{around} {{ {} }}", body(71))).is_empty(), "{around}");
        }
    }

    #[test]
    fn a_root_without_promise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("src");
        std::fs::create_dir(&source).unwrap();
        let package = Package { name: "a".into(), folder: folder.path().into(), dependencies: Vec::new() };
        let judge = |text: &str| {
            std::fs::write(source.join("lib.rs"), text).unwrap();
            check(folder.path(), &package).unwrap()
        };
        assert!(judge("//! Does things.\n")[0].contains("src/lib.rs: the crate's documentation lacks"));
        assert!(judge("//! Does things.\n//!\n//! Deliberately not in it: other things.\n").is_empty());
        assert_eq!(judge("//! Does things.\n\n// Deliberately not in it: other things.\n").len(), 1);
    }
}
