//! The rules there are: BuildKit's, in BuildKit's order and words, then Kiln's own.
//!
//! Names and descriptions are what tools match on, so they are BuildKit's to the letter; a rule of Kiln's own says so.

/// A build check.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The name, as in `# check=skip=…`.
    pub name: &'static str,
    /// What the rule asks for, in a sentence.
    pub description: &'static str,
    /// The page about it. `None` where BuildKit has none; Kiln's own page is [`Rule::file`].
    pub page: Option<&'static str>,
    /// Whether it is checked only where `# check=experimental=…` asks for it.
    pub experimental: bool,
    /// Whether it is Kiln's own, which BuildKit does not know.
    pub own: bool,
}

impl Rule {
    /// The file below `docs/checks/` that explains the rule: `json-args-recommended.md`.
    pub fn file(&self) -> String {
        let mut out = String::new();
        let letters: Vec<char> = self.name.chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            let after_lower = at > 0 && letters[at - 1].is_ascii_lowercase();
            let before_lower = at > 0 && letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            if letter.is_ascii_uppercase() && (after_lower || before_lower) {
                out.push('-');
            }
            out.push(letter.to_ascii_lowercase());
        }
        out + ".md"
    }
}

/// The rule of that name, in any case.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.name.eq_ignore_ascii_case(name))
}

/// Declares the rules and the list of them.
macro_rules! rules {
    ($($id:ident: $name:literal, $page:expr, $experimental:literal, $own:literal, $description:literal;)*) => {
        $(
            #[doc = $description]
            pub static $id: Rule = Rule {
                name: $name,
                description: $description,
                page: $page,
                experimental: $experimental,
                own: $own,
            };
        )*

        /// Every rule, each once.
        pub static RULES: &[&Rule] = &[$(&$id),*];
    };
}

/// BuildKit's page about a rule.
macro_rules! page {
    ($file:literal) => {
        Some(concat!("https://docs.docker.com/go/dockerfile/rule/", $file, "/"))
    };
}

rules! {
    STAGE_NAME_CASING: "StageNameCasing", page!("stage-name-casing"), false, false,
        "Stage names should be lowercase";
    FROM_AS_CASING: "FromAsCasing", page!("from-as-casing"), false, false,
        "The 'as' keyword should match the case of the 'from' keyword";
    NO_EMPTY_CONTINUATION: "NoEmptyContinuation", page!("no-empty-continuation"), false, false,
        "Empty continuation lines will become errors in a future release";
    CONSISTENT_INSTRUCTION_CASING: "ConsistentInstructionCasing", page!("consistent-instruction-casing"), false, false,
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DUPLICATE_STAGE_NAME: "DuplicateStageName", page!("duplicate-stage-name"), false, false,
        "Stage names should be unique";
    RESERVED_STAGE_NAME: "ReservedStageName", page!("reserved-stage-name"), false, false,
        "Reserved words should not be used as stage names";
    JSON_ARGS_RECOMMENDED: "JSONArgsRecommended", page!("json-args-recommended"), false, false,
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MAINTAINER_DEPRECATED: "MaintainerDeprecated", page!("maintainer-deprecated"), false, false,
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UNDEFINED_ARG_IN_FROM: "UndefinedArgInFrom", page!("undefined-arg-in-from"), false, false,
        "FROM command must use declared ARGs";
    WORKDIR_RELATIVE_PATH: "WorkdirRelativePath", page!("workdir-relative-path"), false, false,
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    UNDEFINED_VAR: "UndefinedVar", page!("undefined-var"), false, false,
        "Variables should be defined before their use";
    MULTIPLE_INSTRUCTIONS_DISALLOWED: "MultipleInstructionsDisallowed", page!("multiple-instructions-disallowed"), false, false,
        "Multiple instructions of the same type should not be used in the same stage";
    LEGACY_KEY_VALUE_FORMAT: "LegacyKeyValueFormat", page!("legacy-key-value-format"), false, false,
        "Legacy key/value format with whitespace separator should not be used";
    INVALID_BASE_IMAGE_PLATFORM: "InvalidBaseImagePlatform", None, false, false,
        "Base image platform does not match expected target platform";
    REDUNDANT_TARGET_PLATFORM: "RedundantTargetPlatform", page!("redundant-target-platform"), false, false,
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SECRETS_USED_IN_ARG_OR_ENV: "SecretsUsedInArgOrEnv", page!("secrets-used-in-arg-or-env"), false, false,
        "Sensitive data should not be used in the ARG or ENV commands";
    INVALID_DEFAULT_ARG_IN_FROM: "InvalidDefaultArgInFrom", page!("invalid-default-arg-in-from"), false, false,
        "Default value for global ARG results in an empty or invalid base image name";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED: "FromPlatformFlagConstDisallowed", page!("from-platform-flag-const-disallowed"), false, false,
        "FROM --platform flag should not use a constant value";
    COPY_IGNORED_FILE: "CopyIgnoredFile", page!("copy-ignored-file"), false, false,
        "Attempting to Copy file that is excluded by .dockerignore";
    INVALID_DEFINITION_DESCRIPTION: "InvalidDefinitionDescription", page!("invalid-definition-description"), true, false,
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    EXPOSE_PROTO_CASING: "ExposeProtoCasing", page!("expose-proto-casing"), false, false,
        "Protocol in EXPOSE instruction should be lowercase";
    EXPOSE_INVALID_FORMAT: "ExposeInvalidFormat", page!("expose-invalid-format"), false, false,
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
    COPY_TOO_BROAD: "CopyTooBroad", None, false, true,
        "Dependencies should be installed before the rest of the context is copied, so that an edit of a source file does not install them again";
    REWRITTEN_FILES: "RewrittenFiles", None, false, true,
        "Files should get their mode and owner where they are made: a later step that changes them stores them a second time";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_own_file() {
        for (name, file) in [
            ("JSONArgsRecommended", "json-args-recommended.md"),
            ("SecretsUsedInArgOrEnv", "secrets-used-in-arg-or-env.md"),
            ("undefinedvar", "undefined-var.md"),
        ] {
            assert_eq!(rule(name).map(Rule::file).as_deref(), Some(file));
        }
        for rule in RULES {
            let file = rule.file();
            let file = file.trim_end_matches(".md");
            assert!(rule.page.is_none_or(|page| page.contains(&format!("/{file}/"))), "{}", rule.name);
        }
        assert_eq!(rule("NoSuchRule"), None);
    }
}
