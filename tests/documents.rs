//! The documents and the tree agree: names, files, numbers and words.
//!
//! ```text
//!   README, CHANGELOG, manual ──names──▶ tests and files        exist
//!   comments in *.rs ──────────quote───▶ P7, E1, I18, …         defined in protocol.md or guarantees.md
//!   glossary.md ───────────────defines─▶ terms                  used elsewhere
//!   retired names ─────────────────────▶ nowhere in the tree
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const CODE: [&str; 7] = ["src", "membership", "raft-core", "transport-grpc", "tests", "examples", "benches"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, without build output and hidden folders other than those of the CI.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let skipped = name == "target" || name.starts_with('.') && ![".ci", ".github", ".cargo"].contains(&&*name);
        match path.is_dir() {
            true if !skipped => files(&path, found)?,
            true => {}
            false => found.push(path),
        }
    }
    found.sort();
    Ok(())
}

fn sources() -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for folder in CODE {
        files(&root().join(folder), &mut found)?;
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    Ok(found)
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    files(&root().join("src/manual"), &mut found)?;
    found.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    found.retain(|path| path.extension().is_some_and(|end| end == "md"));
    Ok(found)
}

/// A path as a reader would type it.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The texts between back-ticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    let (mut named, mut missing) = (0, vec![]);
    for document in documents()? {
        let text = std::fs::read_to_string(&document)?;
        for (file, name) in quoted(&text).filter_map(|quote| quote.split_once(".rs::")) {
            let source = std::fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
            named += 1;
            // A property is named in a macro, everything else is a function.
            let there = source.contains(&format!("fn {name}(")) || source.contains(&format!("        {name}: "));
            if !there {
                missing.push(format!("{}: {file}.rs::{name}", shown(&document)));
            }
        }
    }
    assert!(named > 100, "only {named} tests are named: is this test looking in the right place?");
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn every_file_that_a_document_names_exists() -> Result<()> {
    let (mut named, mut missing) = (0, vec![]);
    let rooted = |path: &&str| CODE.iter().chain(&["proto", ".ci"]).any(|top| path.starts_with(&format!("{top}/")));
    let literal = |path: &&str| !path.contains([' ', '*', '<', '…', '{']);
    for document in documents()? {
        let text = std::fs::read_to_string(&document)?;
        let mut check = |path: PathBuf| {
            named += 1;
            if !path.exists() {
                missing.push(format!("{}: {}", shown(&document), shown(&path)));
            }
        };
        for path in quoted(&text).filter(rooted).filter(literal) {
            check(root().join(path.split("::").next().unwrap_or(path)));
        }
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("::") && !link.contains("//") && !link.starts_with('#')) {
            let link = link.split('#').next().unwrap_or(link);
            check(document.parent().unwrap_or(root()).join(link));
        }
    }
    assert!(named > 150, "only {named} files are named: is this test looking in the right place?");
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn every_invariant_is_in_the_table() -> Result<()> {
    let text = std::fs::read_to_string(root().join("src/manual/guarantees.md"))?;
    for number in 1..=20 {
        let row = text.lines().find(|line| line.starts_with(&format!("| I{number} |")));
        let row = row.with_context(|| format!("I{number} is missing"))?;
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
    Ok(())
}

/// A number of the protocol: `P7`, `E1`, `I18`.
type Number = (char, u32);

/// One or two digits at the start of `text`, and what follows them.
fn digits(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok().filter(|_| end <= 2)?;
    Some((number, &text[end..]))
}

/// The numbers that a comment quotes. A range such as `P6-P9`, `P6..P9` or `P6 to P9` quotes all between.
fn numbers(comment: &str) -> BTreeSet<Number> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut before) = (BTreeSet::new(), ' ');
    for (at, letter) in comment.char_indices() {
        let begins = !word(std::mem::replace(&mut before, letter)) && "PEWAI".contains(letter);
        let Some((first, rest)) = digits(&comment[at + letter.len_utf8()..]).filter(|_| begins) else { continue };
        if rest.starts_with(word) {
            continue;
        }
        let ends = [" to ", " - ", " – ", "..=", "..", "-", "–"].iter().find_map(|dash| rest.strip_prefix(dash));
        let last = ends.and_then(|rest| digits(rest.strip_prefix(letter)?)).map_or(first, |(last, _)| last);
        found.extend((first..=last).map(|number| (letter, number)));
    }
    found
}

#[test]
fn a_quoted_number_is_found_and_nothing_else() {
    let quoted = |comment| Vec::from_iter(numbers(comment));
    assert_eq!(quoted("// As P7, P8: E1."), [('E', 1), ('P', 7), ('P', 8)]);
    assert_eq!(quoted("// (W1–W3) and P6 to P8"), [('P', 6), ('P', 7), ('P', 8), ('W', 1), ('W', 2), ('W', 3)]);
    assert_eq!(quoted("// 0xE1, BP1, P100, E1x, `Pair<A, B>`, n3#2, r42"), []);
}

#[test]
fn every_number_that_code_quotes_is_defined() -> Result<()> {
    let mut defined = BTreeSet::new();
    for page in ["protocol.md", "guarantees.md"] {
        let text = std::fs::read_to_string(root().join("src/manual").join(page))?;
        let starts = text.lines().filter_map(|line| match line.strip_prefix("**") {
            Some(rest) => rest.split_once(".**"),
            None => line.strip_prefix("| ")?.split_once(" |"),
        });
        let number =
            |start: &str| numbers(start).into_iter().find(|(letter, digits)| start == format!("{letter}{digits}"));
        defined.extend(starts.filter_map(|(start, _)| number(start)));
    }
    for (letter, count) in [('P', 22), ('W', 3), ('E', 6), ('A', 7), ('I', 20)] {
        let missing: Vec<_> = (1..=count).filter(|number| !defined.contains(&(letter, *number))).collect();
        assert!(missing.is_empty(), "{letter} {missing:?} are not defined in the manual");
    }
    let (mut quotes, mut missing) = (0, vec![]);
    for source in sources()? {
        let text = std::fs::read_to_string(&source)?;
        for (at, line) in text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            for (letter, number) in numbers(comment) {
                quotes += 1;
                if !defined.contains(&(letter, number)) {
                    missing.push(format!("{}:{}: {letter}{number}", shown(&source), at + 1));
                }
            }
        }
    }
    assert!(quotes > 150, "only {quotes} numbers are quoted: is this test looking in the right place?");
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

/// Letters and digits only, lower case: so that `lock guard`, `LockGuard` and `lock-guard` are one.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[test]
fn every_term_of_the_glossary_is_used_and_defined_once() -> Result<()> {
    let glossary = root().join("src/manual/glossary.md");
    let mut elsewhere = String::new();
    for path in sources()?.into_iter().chain(documents()?).filter(|path| *path != glossary) {
        elsewhere.push_str(&plain(&std::fs::read_to_string(path)?));
    }
    let text = std::fs::read_to_string(&glossary)?;
    let terms = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let (mut seen, mut wrong) = (BTreeSet::new(), vec![]);
    for term in terms.filter(|term| *term != "term") {
        if !elsewhere.contains(&plain(term)) {
            wrong.push(format!("`{term}` is used nowhere else"));
        }
        if !seen.insert(term) {
            wrong.push(format!("`{term}` is defined twice"));
        }
    }
    assert!(seen.len() > 60, "only {} terms were found", seen.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Splits `is_over`, `NotOurs` and `two words` into lower-case words.
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut found = vec![String::new()];
    let mut lower = false;
    for c in text.chars() {
        if !c.is_alphabetic() || c.is_uppercase() && lower {
            found.push(String::new());
        }
        lower = c.is_lowercase();
        if let Some(word) = found.last_mut().filter(|_| c.is_alphabetic()) {
            word.extend(c.to_lowercase());
        }
    }
    found.into_iter().filter(|word| !word.is_empty())
}

/// Words and names that were retired, in pieces, so that this file does not contain them.
struct Retired {
    /// As a word, or as a part of a name, anywhere in the tree.
    words: BTreeSet<String>,
    /// As a whole name in code. In prose some of these are ordinary words.
    names: BTreeSet<String>,
    /// As the name of a type that a crate defines. Variants and the types of tests may be called so.
    types: BTreeSet<String>,
}

fn retired() -> Retired {
    let joined = |pieces: &[[&str; 2]]| pieces.iter().map(|piece| piece.concat()).collect();
    let words = joined(&[
        ["ste", "ward"],
        ["war", "den"],
        ["de", "sk"],
        ["he", "ir"],
        ["he", "irs"],
        ["se", "am"],
        ["switch", "board"],
        ["mor", "tal"],
        ["pat", "ience"],
        ["yel", "low"],
        ["gre", "en"],
        ["re", "d"],
        ["set", "back"],
        ["plat", "ter"],
        ["di", "ce"],
    ]);
    let names = joined(&[
        ["Off", "ice"],
        ["Po", "st"],
        ["Wor", "ks"],
        ["Do", "or"],
        ["ClusterDo", "or"],
        ["RaftDo", "or"],
        ["StoreDo", "or"],
        ["Not", "Ours"],
        ["Mak", "ing"],
        ["Nam", "ed"],
        ["is_", "over"],
        ["Con", "duct"],
        ["Bi", "tes"],
    ]);
    let types = joined(&[["Gu", "ard"], ["Ri", "ght"], ["Out", "come"], ["Se", "en"], ["Li", "ne"]]);
    Retired { words, names, types }
}

/// The name of the type that a line of code defines.
fn defined_type(code: &str) -> Option<&str> {
    let mut parts = code.split_whitespace().skip_while(|part| !["struct", "enum", "trait", "type"].contains(part));
    parts.nth(1)?.split(|c: char| !c.is_alphanumeric()).next()
}

#[test]
fn no_retired_name_is_in_the_tree() -> Result<()> {
    let retired = retired();
    let mut all = vec![];
    files(root(), &mut all)?;
    // Licences are quoted, and the lock file names other people's packages.
    all.retain(|path| !["LICENSE-APACHE", "LICENSE-MIT", "Cargo.lock"].iter().any(|name| path.ends_with(name)));
    let (mut read, mut hits) = (0, vec![]);
    for path in all {
        // Golden bytes are no text.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        read += 1;
        let is_code = path.extension().is_some_and(|end| end == "rs");
        for (at, line) in std::iter::once(&*shown(&path)).chain(text.lines()).enumerate() {
            let place = format!("{}:{at}", shown(&path));
            let word = words(line).find(|word| retired.words.contains(word));
            hits.extend(word.map(|word| format!("{place}: {word}")));
            if is_code {
                let code = line.split("//").next().unwrap_or_default();
                let mut names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
                let name = names.find(|name| retired.names.contains(*name));
                let of_crate = path.components().any(|part| part.as_os_str() == "src");
                let kind = defined_type(code).filter(|kind| of_crate && retired.types.contains(*kind));
                hits.extend(name.or(kind).map(|name| format!("{place}: {name}")));
            }
        }
    }
    assert!(read > 300, "only {read} files were read: is this test looking in the right place?");
    assert!(hits.is_empty(), "{hits:#?}");
    Ok(())
}
