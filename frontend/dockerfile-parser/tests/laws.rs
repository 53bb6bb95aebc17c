//! Laws that hold for all texts: of the expansion of variables, and of triggers that are stored and read back.

use dockerfile_parser::expand::word;
use dockerfile_parser::{Dockerfile, Escape, Instruction, Span, parse, parse_trigger};
use proptest::prelude::*;

/// Expands with `$v` set to a value and every other variable unset.
fn expand(text: &str, value: &str) -> String {
    let variables = |name: &str| (name == "v").then(|| value.to_owned());
    word(text, Escape::Backslash, &variables).unwrap_or_else(|error| panic!("{text}: {error}")).text
}

/// A text that is whole: what stands behind it does not change what it means.
fn whole() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-c .é]{1,3}",
        Just("${v}".to_owned()),
        Just("${u:-d}".to_owned()),
        Just("\"q $v\"".to_owned()),
        Just("'$v'".to_owned()),
        Just("\\$".to_owned()),
        Just("${v#?}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_whole_is_its_parts(first in whole(), second in whole(), value in "[ab]{0,5}") {
        let both = expand(&first, &value) + &expand(&second, &value);
        prop_assert_eq!(expand(&format!("{first}{second}"), &value), both);
    }

    #[test]
    fn a_default_counts_where_the_value_does_not(text in whole(), value in "[ab]{0,3}") {
        let text_expanded = expand(&text, &value);
        let or_value = if value.is_empty() { text_expanded.clone() } else { value.clone() };
        let or_nothing = if value.is_empty() { String::new() } else { text_expanded.clone() };
        for (form, expected) in [
            (format!("${{u-{text}}}"), &text_expanded),
            (format!("${{u:-{text}}}"), &text_expanded),
            (format!("${{v-{text}}}"), &value),
            (format!("${{v:-{text}}}"), &or_value),
            (format!("${{v+{text}}}"), &text_expanded),
            (format!("${{v:+{text}}}"), &or_nothing),
            (format!("${{u+{text}}}"), &String::new()),
            (format!("${{v?{text}}}"), &value),
        ] {
            prop_assert_eq!(&expand(&form, &value), expected, "{}", form);
        }
    }

    #[test]
    fn what_is_taken_off_was_there(pattern in "[ab*?]{0,4}", value in "[ab]{0,8}") {
        let [shortest, longest] = ["#", "##"].map(|operator| expand(&format!("${{v{operator}{pattern}}}"), &value));
        prop_assert!(value.ends_with(&shortest) && shortest.ends_with(&longest));
        let [shortest, longest] = ["%", "%%"].map(|operator| expand(&format!("${{v{operator}{pattern}}}"), &value));
        prop_assert!(value.starts_with(&shortest) && shortest.starts_with(&longest));
    }

    #[test]
    fn plain_replacements_are_those_of_strings(part in "[ab]{1,3}", with in "[xy]{0,3}", value in "[ab]{0,9}") {
        prop_assert_eq!(expand(&format!("${{v/{part}/{with}}}"), &value), value.replacen(&part, &with, 1));
        prop_assert_eq!(expand(&format!("${{v//{part}/{with}}}"), &value), value.replace(&part, &with));
    }

    #[test]
    fn escaped_text_is_itself(text in "\\PC{0,30}|[$'\"`\\\\{} <\n]{0,12}") {
        for escape in [Escape::Backslash, Escape::Backtick] {
            let escaped: String = text.chars().flat_map(|c| [escape.char(), c]).collect();
            let expanded = word(&escaped, escape, &|_| None).expect("nothing in it means anything");
            prop_assert_eq!(&expanded.text, &text);
            prop_assert_eq!(expanded.words.concat(), text.as_str());
        }
    }
}

/// Lines of an instruction that may stand behind `ONBUILD`.
fn trigger() -> impl Strategy<Value = String> {
    let word = "[a-z$\\{\\}\"'/.=:-]{1,6}";
    prop_oneof![
        proptest::collection::vec(word, 1..5)
            .prop_map(|words| format!("RUN {}", words.join(" \\\n # no\n  "))),
        proptest::collection::vec(word, 2..4).prop_map(|words| format!("COPY --link {}", words.join("\t"))),
        ("[A-Z]{1,3}", "[ -~\t]{0,12}\n").prop_map(|(name, body)| format!("RUN <<{name}\n{body}{name}")),
        ("[A-Z]{1,3}", "\t?[ -~]{0,12}\n").prop_map(|(name, body)| {
            format!("COPY <<-'{name}' <<B{name} /d/\n{body}\t{name}\n{body}B{name}")
        }),
        "[a-z]{1,4}=\"[a-z ]{0,4}\"".prop_map(|pair| format!("ENV {pair} \\\n\n b=c")),
        "[a-z \"]{0,9}".prop_map(|text| format!("CMD [\"{}\"]", text.replace('"', "\\u0022"))),
    ]
}

fn stored(file: &Dockerfile) -> Option<&str> {
    match &file.stages[0].instructions.first()?.value {
        Instruction::Onbuild(onbuild) => Some(&onbuild.trigger),
        _ => None,
    }
}

proptest! {
    /// What a config stores is what a later build reads: the same instruction, and stored again, the same text.
    #[test]
    fn a_stored_trigger_is_the_instruction(text in trigger()) {
        if let Ok(file) = parse(format!("FROM a\nONBUILD {text}\n").as_bytes()) {
            let trigger = stored(&file).expect("it is an ONBUILD");
            let there = Span::new(3, 4);
            let read = parse_trigger(trigger, there).map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
            let direct = parse_trigger(&text, there).map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
            prop_assert_eq!(read.value, direct.value);
            let again = parse(format!("FROM a\nONBUILD {trigger}\n").as_bytes());
            let again = again.map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
            prop_assert_eq!(stored(&again), Some(trigger));
        }
    }
}
