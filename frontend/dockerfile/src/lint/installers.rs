//! The commands that install dependencies, and the files that they need for it: data for `broad.rs`.
//!
//! What stands here must work with the files that are named and nothing else of the project. That is why some are
//! missing: `cargo fetch` refuses a manifest without its source files, `poetry install` and `uv sync` install the
//! project itself unless a flag says otherwise, `composer install` runs the project's scripts.

/// A command that installs dependencies.
pub(super) struct Installer {
    /// The program and its subcommand, as words: each way to write it.
    pub(super) commands: &'static [&'static [&'static str]],
    /// Flags without which it needs more of the project.
    pub(super) only_with: &'static [&'static str],
    /// What may follow the command besides flags.
    pub(super) operands: Operands,
    /// What to copy, relative to the folder it runs in. A `*` at the end makes a file optional.
    pub(super) files: &'static [&'static str],
    /// Whether the files stand in several folders, so that they are copied with `--parents`.
    pub(super) parents: bool,
}

/// What may follow a command besides flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operands {
    /// Nothing: with a name it installs something else.
    None,
    /// Files behind `-r` and `-c`, which are what is to be copied, and names of packages.
    RequirementFiles,
    /// Goals of Maven, all of which must be about dependencies.
    Goals,
}

/// Flags whose value is the next word.
pub(super) const WITH_VALUE: [&str; 23] = [
    "--cache-folder",
    "--extra",
    "--extra-index-url",
    "--find-links",
    "--group",
    "--index-url",
    "--jobs",
    "--loglevel",
    "--network-timeout",
    "--no-group",
    "--omit",
    "--only",
    "--path",
    "--python",
    "--registry",
    "--retries",
    "--retry",
    "--timeout",
    "--trusted-host",
    "--with",
    "--without",
    "-i",
    "-j",
];

/// Flags with which a command installs something else, looks somewhere else, or only says something.
pub(super) const ELSEWHERE: [&str; 25] = [
    "--cwd",
    "--dir",
    "--directory",
    "--editable",
    "--file",
    "--gemfile",
    "--global",
    "--help",
    "--modules-folder",
    "--prefix",
    "--project",
    "--project-dir",
    "--project-file",
    "--version",
    "--working-dir",
    "--workspace",
    "-C",
    "-b",
    "-d",
    "-e",
    "-f",
    "-g",
    "-h",
    "-v",
    "-w",
];

const fn simple(commands: &'static [&'static [&'static str]], files: &'static [&'static str]) -> Installer {
    Installer { commands, only_with: &[], operands: Operands::None, files, parents: false }
}

/// All that are known.
pub(super) const INSTALLERS: &[Installer] = &[
    simple(
        &[&["npm", "ci"], &["npm", "clean-install"], &["npm", "install"], &["npm", "i"]],
        &["package.json", "package-lock.json*"],
    ),
    simple(&[&["yarn", "install"], &["yarn"]], &["package.json", "yarn.lock*", ".yarnrc*"]),
    simple(
        &[&["pnpm", "install"], &["pnpm", "i"]],
        &["package.json", "pnpm-lock.yaml*", "pnpm-workspace.yaml*"],
    ),
    simple(&[&["bun", "install"], &["bun", "i"]], &["package.json", "bun.lock*"]),
    Installer {
        operands: Operands::RequirementFiles,
        ..simple(
            &[
                &["pip", "install"],
                &["pip3", "install"],
                &["python", "-m", "pip", "install"],
                &["python3", "-m", "pip", "install"],
                &["uv", "pip", "install"],
            ],
            &[],
        )
    },
    simple(&[&["pipenv", "install"], &["pipenv", "sync"]], &["Pipfile", "Pipfile.lock*"]),
    Installer {
        only_with: &["--no-root"],
        ..simple(&[&["poetry", "install"], &["poetry", "sync"]], &["pyproject.toml", "poetry.lock*"])
    },
    Installer {
        only_with: &["--no-install-project"],
        ..simple(&[&["uv", "sync"]], &["pyproject.toml", "uv.lock*"])
    },
    Installer {
        only_with: &["--no-self"],
        ..simple(&[&["pdm", "install"], &["pdm", "sync"]], &["pyproject.toml", "pdm.lock*"])
    },
    simple(&[&["go", "mod", "download"]], &["go.mod", "go.sum*"]),
    simple(&[&["bundle", "install"], &["bundle"]], &["Gemfile", "Gemfile.lock*"]),
    Installer {
        only_with: &["--no-scripts", "--no-autoloader"],
        ..simple(&[&["composer", "install"]], &["composer.json", "composer.lock*"])
    },
    Installer { operands: Operands::Goals, ..simple(&[&["mvn"]], &["pom.xml"]) },
    Installer {
        parents: true,
        ..simple(&[&["gradle", "dependencies"], &["./gradlew", "dependencies"]], &["*.gradle*", "gradle*"])
    },
    Installer {
        parents: true,
        ..simple(&[&["dotnet", "restore"]], &["*.sln*", "**/*.*proj", "**/*.props", "[Nn]u[Gg]et.[Cc]onfig*"])
    },
    simple(&[&["mix", "deps.get"]], &["mix.exs", "mix.lock*"]),
    simple(&[&["dart", "pub", "get"], &["flutter", "pub", "get"]], &["pubspec.yaml", "pubspec.lock*"]),
    simple(&[&["swift", "package", "resolve"]], &["Package.swift", "Package.resolved*"]),
];
