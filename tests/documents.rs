//! What the documents name must exist: each test that is said to prove a promise, each file that is pointed at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn documents() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for entry in std::fs::read_dir(root.join("src/manual"))? {
        found.push(entry?.path());
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "md"));
    Ok(found)
}

/// The texts between back-ticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut named, mut missing) = (0, vec![]);
    for document in documents()? {
        let text = std::fs::read_to_string(&document)?;
        for proof in quoted(&text).filter_map(|quote| quote.split_once(".rs::")) {
            let (file, name) = (root.join(format!("{}.rs", proof.0)), proof.1);
            let source = std::fs::read_to_string(&file).unwrap_or_default();
            named += 1;
            // A property is named in a macro, everything else is a function.
            let there = source.contains(&format!("fn {name}(")) || source.contains(&format!("        {name}: "));
            if !there {
                missing.push(format!("{}: {}.rs::{name}", document.display(), proof.0));
            }
        }
    }
    assert!(named > 40, "only {named} tests are named: is this test looking in the right place?");
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn every_invariant_is_in_the_table() -> Result<()> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/guarantees.md");
    let text = std::fs::read_to_string(manual)?;
    for number in 1..=20 {
        let row = text.lines().find(|line| line.starts_with(&format!("| I{number} |")));
        let row = row.with_context(|| format!("I{number} is missing"))?;
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
    Ok(())
}
