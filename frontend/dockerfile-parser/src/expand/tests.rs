//! Expansion as tables.

use super::*;
use proptest::prelude::*;

/// `A=alpha`, `P=/a/b/c.tar.gz`, `E` is empty, `S=x  y` has blanks; nothing else is set.
fn variables(name: &str) -> Option<String> {
    let value = match name {
        "A" => "alpha",
        "P" => "/a/b/c.tar.gz",
        "E" => "",
        "S" => "x  y",
        "ä" => "umlaut",
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(word_text: &str) -> Result<String, ExpandErrorKind> {
    word(word_text, Escape::Backslash, &variables).map(|expanded| expanded.text).map_err(|error| error.kind)
}

#[test]
fn texts() {
    let cases = [
        ("", ""),
        ("plain", "plain"),
        ("$A-$A", "alpha-alpha"),
        ("${A}s", "alphas"),
        ("$As", ""),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$ä", "umlaut"),
        ("$1x $@ $$ $#", "x   "),
        ("'$A'", "$A"),
        ("\"$A'b'\"", "alpha'b'"),
        ("\\$A", "$A"),
        ("\"\\$A\\\"\\x\\\\\"", "$A\"\\x\\"),
        ("a\\ b\\", "a b"),
        ("'it''s'", "its"),
        ("${A:-w}${A-w}", "alphaalpha"),
        ("${E:-w}.${E-w}", "w."),
        ("${N:-w}${N-w}", "ww"),
        ("${A:+w}${A+w}", "ww"),
        ("${E:+w}.${E+w}", ".w"),
        ("${N:+w}${N+w}", ""),
        ("${A:?m}${E?m}", "alpha"),
        ("${N:-${M:-$A}}", "alpha"),
        ("${N:-'}'\"$A\"}", "}alpha"),
        ("${N:-a\\}b}", "a}b"),
        ("${N:-}", ""),
        ("${P#*/}", "a/b/c.tar.gz"),
        ("${P##*/}", "c.tar.gz"),
        ("${P%.*}", "/a/b/c.tar"),
        ("${P%%.*}", "/a/b/c"),
        ("${P#/?/}", "b/c.tar.gz"),
        ("${A#x}${A%x}", "alphaalpha"),
        ("${A#${A%pha}}", "pha"),
        ("${P/\\//_}", "_a/b/c.tar.gz"),
        ("${P//\\//_}", "_a_b_c.tar.gz"),
        ("${A/a/}", "lpha"),
        ("${A//a*l/X}", "Xpha"),
        ("${A/a/\\/}", "\\/lpha"),
        ("${N/a/b}${N#a}", ""),
        ("${1}${@}", ""),
        ("<<$A < <", "<<alpha < <"),
    ];
    for (word_text, expected) in cases {
        assert_eq!(text(word_text).as_deref(), Ok(expected), "{word_text}");
    }
}

#[test]
fn the_other_escape_character() {
    let expand = |text| word(text, Escape::Backtick, &variables).unwrap().text;
    assert_eq!(expand("C:\\dir\\x"), "C:\\dir\\x");
    assert_eq!(expand("`$A \"a`\"b\" \\$A"), "$A a\"b \\alpha");
}

#[test]
fn errors() {
    let operator = |operator: &str| ExpandErrorKind::UnsupportedOperator { operator: operator.into() };
    let required =
        |name: &str, message: &str| ExpandErrorKind::Required { name: name.into(), message: message.into() };
    let cases = [
        ("'a", ExpandErrorKind::OpenQuote { quote: '\'' }),
        ("\"a", ExpandErrorKind::OpenQuote { quote: '"' }),
        ("\"a\\", ExpandErrorKind::OpenQuote { quote: '"' }),
        ("${", ExpandErrorKind::MissingBrace),
        ("${A", ExpandErrorKind::MissingBrace),
        ("${A:", ExpandErrorKind::MissingBrace),
        ("${A:-b", ExpandErrorKind::MissingBrace),
        ("${A/b/c", ExpandErrorKind::MissingBrace),
        ("${A/b}", ExpandErrorKind::MissingSlash),
        ("${}", ExpandErrorKind::BadSubstitution),
        ("${{A}}", ExpandErrorKind::BadSubstitution),
        ("${:-a}", ExpandErrorKind::BadSubstitution),
        ("${A^}", operator("^")),
        ("${A:#a}", operator(":#")),
        ("${A:%a}", operator(":%")),
        ("${A:1:2}", operator(":1")),
        ("${A b}", operator(" ")),
        ("${A#\\x}", ExpandErrorKind::InvalidEscape { escape: "x".into() }),
        ("${N?}", required("N", "is not allowed to be unset")),
        ("${E:?}", required("E", "is not allowed to be empty")),
        ("${N:?must be $A}", required("N", "must be alpha")),
        ("${A:-${N:?inner}}", required("N", "inner")),
    ];
    for (word_text, expected) in cases {
        assert_eq!(text(word_text), Err(expected), "{word_text}");
    }
    let error = word("ab${N?x}c", Escape::Backslash, &variables).unwrap_err();
    assert_eq!((error.range.clone(), error.code()), (2..8, "required-variable"));
}

#[test]
fn words() {
    let cases: [(&str, &[&str]); 8] = [
        ("a  b", &["a", "b"]),
        (" a ", &["a"]),
        ("$S.z", &["x", "y.z"]),
        ("\"$S\".z", &["x  y.z"]),
        ("a\\ b c", &["a b", "c"]),
        ("a '' b", &["a", "b"]),
        ("$N", &[]),
        ("80 $E 8080/udp", &["80", "8080/udp"]),
    ];
    for (word_text, expected) in cases {
        assert_eq!(word(word_text, Escape::Backslash, &variables).unwrap().words, expected, "{word_text}");
    }
}

#[test]
fn names_that_were_looked_up() {
    let expanded = word("$A $N ${M:-$L} ${K+x} ${J#x} ${E/a/b}", Escape::Backslash, &variables).unwrap();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&expanded.used), "A E");
    assert_eq!(names(&expanded.unset), "J L N");
}

#[test]
fn heredocs() {
    let cases = [
        ("'$A' \"$A\"\n", "'alpha' \"alpha\"\n"),
        ("it's \\$A \\n\\\\\n", "it's $A n\\\n"),
        ("${N:-\"w\"}", "\"w\""),
    ];
    for (body, expected) in cases {
        assert_eq!(heredoc(body, &variables).unwrap().text, expected, "{body}");
    }
}

#[test]
fn hostile_depth() {
    let deep = "${a:-".repeat(200_000);
    assert_eq!(text(&deep), Err(ExpandErrorKind::TooDeep));
    assert_eq!(text(&"\"${a:-".repeat(200_000)), Err(ExpandErrorKind::TooDeep));
    assert_eq!(text(&"${a/".repeat(200_000)), Err(ExpandErrorKind::TooDeep));
    assert_eq!(raw_words(&format!("{deep} <<EOF")), None);
    let allowed = format!("{}x{}", "${a:-".repeat(DEEPEST), "}".repeat(DEEPEST));
    assert_eq!(text(&allowed).as_deref(), Ok("x"));
}

#[test]
fn hostile_length() {
    let long = |name: &str| (name == "v").then(|| "a".repeat(2000));
    let expand = |text: &str| word(text, Escape::Backslash, &long).map_err(|error| error.kind);
    // Without a limit: 2000⁴ bytes, 2000³ bytes, and 4 million comparisons for each of 64 patterns.
    for text in [
        "${v//?/${v//?/${v//?/$v}}}",
        "${v//?/${v//?/$v}}",
        &"${v%%$v}".repeat(64),
        &"${v##*$v*b}".repeat(64),
    ] {
        assert_eq!(expand(text), Err(ExpandErrorKind::TooMuchWork), "{text}");
    }
    assert_eq!(expand("${v//?/$v}").map(|expanded| expanded.text.len()), Ok(2000 * 2000));
    assert_eq!(expand("${v//a/bc}").map(|expanded| expanded.text.len()), Ok(4000));
}

proptest! {
    #[test]
    fn never_panics(word_text in "([$\\{\\}:\\-+?#%/*'\"\\\\<` aAé1]|\\PC){0,40}") {
        for escape in [Escape::Backslash, Escape::Backtick] {
            if let Err(error) = word(&word_text, escape, &variables) {
                prop_assert!(word_text.get(error.range).is_some());
            }
        }
        let _either = heredoc(&word_text, &variables);
        for (_, place) in raw_words(&word_text).unwrap_or_default() {
            prop_assert!(!word_text[place].is_empty());
        }
    }

    #[test]
    fn single_quotes_keep_everything(inside in "[^']{0,20}") {
        prop_assert_eq!(text(&format!("'{inside}'")), Ok(inside));
    }

    #[test]
    fn plain_text_stays(plain in "[^'\"$\\\\]{0,30}") {
        prop_assert_eq!(text(&plain), Ok(plain));
    }
}
