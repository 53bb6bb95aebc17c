//! The pages of `docs/checks/` are the tests of the build checks: a page's bad example breaks its rule and no other, its
//! good one breaks none.

use std::{collections::BTreeMap, fs, path::Path};

use dockerfile::{Request, lint};

use crate::support::{amd64, checked};

const WHILE_RUNNING: &str = "Told while a step runs.";

/// A page, taken apart.
struct Page {
    title: String,
    description: String,
    /// The text of the fenced blocks: heading, language, text.
    blocks: Vec<(String, String, String)>,
    while_running: bool,
}

impl Page {
    fn read(text: &str) -> Page {
        let mut blocks = Vec::new();
        let (mut heading, mut open) = (String::new(), None::<(String, String)>);
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => open = Some((language.to_owned(), String::new())),
                (Some(_), Some(_)) => {
                    let (language, text) = open.take().expect("a block is open");
                    blocks.push((heading.clone(), language, text));
                }
                (Some((_, text)), None) => text.push_str(&format!("{line}\n")),
                (None, None) => heading = line.strip_prefix("## ").map_or(heading, str::to_owned),
            }
        }
        assert!(open.is_none(), "a block is not closed");
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let title = lines.next().and_then(|line| line.strip_prefix("# ")).expect("a title").to_owned();
        let description = lines.next().expect("a description").to_owned();
        Page { title, description, blocks, while_running: text.contains(WHILE_RUNNING) }
    }

    fn block(&self, heading: &str, language: &str) -> Option<&str> {
        let mut blocks = self.blocks.iter().filter(|block| block.0 == heading && block.1 == language);
        blocks.next().map(|block| &*block.2)
    }

    /// The rules that an example breaks, with what is said.
    fn broken(&self, heading: &str) -> Vec<(&'static str, String)> {
        let text = self.block(heading, "dockerfile").expect("an example");
        let mut request = Request::new(amd64());
        let ignored = self.block("Bad", "dockerignore").unwrap_or_default();
        request.ignore = ignored.lines().map(str::to_owned).collect();
        let checked = checked(text, &request);
        // A bad example may be one that cannot be built.
        assert!(checked.error.is_none() || heading == "Bad", "{}: {:?}", self.title, checked.error);
        checked.warnings.into_iter().map(|warning| (warning.rule.name, warning.message)).collect()
    }
}

fn pages() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checks");
    let entries = fs::read_dir(folder).expect("the pages").map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).expect("a page"))).collect()
}

#[test]
fn every_rule_has_a_page_and_every_page_a_rule() {
    let mut pages = pages();
    let index = pages.remove("README.md").expect("an index");
    for rule in lint::RULES {
        let text =
            pages.remove(&rule.file()).unwrap_or_else(|| panic!("docs/checks/{} is missing", rule.file()));
        let page = Page::read(&text);
        assert_eq!((&*page.title, &*page.description), (rule.name, rule.description));
        let row = format!("| [{}]({}) |", rule.name, rule.file());
        let kind = match (rule.experimental, rule.own) {
            (true, _) => "experimental",
            (false, true) => "Kiln",
            (false, false) => "",
        };
        let row = index.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        assert_eq!(row.split('|').nth(2).map(str::trim), Some(kind), "{row}");
        assert!(row.contains(rule.description), "{row}");
    }
    assert!(pages.is_empty(), "these pages are of no rule: {:?}", pages.keys());
}

#[test]
fn examples_do_what_the_pages_say() {
    let mut pages = pages();
    pages.remove("README.md");
    for page in pages.values().map(|text| Page::read(text)) {
        let said = page.block("Bad", "text").expect("what is said");
        let said: Vec<_> = said.lines().map(|line| (&*page.title, line)).collect();
        let broken = page.broken("Bad");
        let broken: Vec<_> = broken.iter().map(|(rule, message)| (*rule, &**message)).collect();
        match page.while_running {
            true => assert_eq!(broken, [], "{}", page.title),
            false => assert_eq!(broken, said, "{}", page.title),
        }
        assert_eq!(page.broken("Good"), [], "{}", page.title);
    }
}
