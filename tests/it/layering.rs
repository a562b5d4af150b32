//! Imports only point down: the table of `src/lib.rs`, held.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::Suite;

/// The rooms, lowest level first. Within the lowest one, the settings are made of the vocabulary.
const LEVELS: [&[&str]; 7] = [
    &["model", "clock", "outgoing", "single_flight"],
    &["config"],
    &["signing", "policy"],
    &["db", "s3", "auth", "scanner"],
    &["domain"],
    &["http", "webhook", "dev"],
    &["app", "cli", "lib", "main"],
];

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.alone("imports_only_point_down", imports_only_point_down);
}

fn imports_only_point_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            // The application's rooms may import each other: there is nobody above whom that could bind.
            let down = level(&import) < level(&room) || import == room || level(&room) == LEVELS.len() - 1;
            if !down {
                wrong.push(format!("{} imports crate::{import}", path.display()));
            }
            seen.insert((room.clone(), import));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    for (room, import) in [("domain", "db"), ("http", "domain"), ("cli", "app"), ("s3", "signing"), ("db", "model")] {
        assert!(seen.contains(&(room.to_owned(), import.to_owned())), "imports are not read: {seen:?}");
    }
}

fn level(room: &str) -> usize {
    LEVELS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} has no level"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The rooms named after `crate::`, alone or in braces, outside of comments.
fn imports(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let word =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        rooms.insert(word(group));
        let mut depth = 1;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    rooms.insert(word(&group[index + 1..]));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.remove("");
    rooms
}
