//! Kiln's own rule `CopyTooBroad`: the whole context is copied above a step that installs dependencies, so that every
//! edit of a source file installs them again.
//!
//! It is told only where the narrower `COPY` can be written down, and stays silent where anything speaks against it:
//!
//! - the command is no known one, has operands, or a flag that makes it need more of the project;
//! - it does not run in the folder that the context was copied to, or below it;
//! - its files were copied or mounted by name, or it ran, before;
//! - a command between the two names one of its files, so may have made it;
//! - the ignore file lists what is let in, so that "the whole context" may be little.

use dockerfile_parser::{Span, instruction::Script};

use super::{
    COPY_TOO_BROAD,
    ignored::leaves_out_everything,
    installers::{ELSEWHERE, INSTALLERS, Installer, Operands, WITH_VALUE},
};
use crate::{gopath, ignore::Ignore, warning::Warnings};

/// What a stage copied and ran so far, as far as the rule wants to know. Stages inherit it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    /// Copies of the whole context.
    whole: Vec<Whole>,
    /// The names of files that were copied or mounted one by one: last parts of paths, or patterns.
    named: Vec<String>,
    /// Installers that ran, by their place in the table.
    ran: Vec<usize>,
    /// The commands that ran.
    commands: String,
}

/// A copy of the whole context.
#[derive(Clone, Debug)]
struct Whole {
    /// The instruction's first words: `COPY . /app`.
    text: String,
    /// The destination as written, as a folder.
    destination: String,
    /// Where that is.
    folder: String,
    span: Span,
}

/// A `COPY` or `ADD`, its words expanded.
pub(crate) struct Copied<'a> {
    pub(crate) keyword: &'a str,
    pub(crate) sources: &'a [&'a str],
    pub(crate) heredocs: &'a [&'a str],
    pub(crate) destination: &'a str,
    /// Whether it is of the main context.
    pub(crate) of_context: bool,
    /// The stage's current folder.
    pub(crate) folder: &'a str,
    pub(crate) span: Span,
}

impl Trail {
    /// Takes note of a `COPY` or an `ADD`.
    pub(crate) fn copied(&mut self, copied: &Copied<'_>, ignore: &Ignore) {
        let is_whole = |source: &&str| matches!(&*gopath::clean(source), "." | "/");
        let Copied { keyword, sources, destination, .. } = copied;
        if let (true, Some(source)) = (copied.of_context, sources.iter().find(|source| is_whole(source)))
            && !leaves_out_everything(ignore)
        {
            self.whole.push(Whole {
                text: format!("{keyword} {source} {destination}"),
                destination: format!("{}/", destination.trim_end_matches('/')),
                folder: gopath::absolute(copied.folder, destination),
                span: copied.span,
            });
        }
        let names = sources.iter().filter(|source| !is_whole(source)).chain(copied.heredocs);
        self.named.extend(names.map(|name| gopath::base(name).to_owned()));
        // `COPY config/app.json package.json` names the file where it is put.
        self.named.push(gopath::base(destination).to_owned());
    }

    /// Takes note of a `RUN` and tells of the copies that make it run again. `mounted` are the sources of its bind
    /// mounts, `folder` is the stage's current one.
    pub(crate) fn runs(
        &mut self,
        script: &Script,
        mounted: &[&str],
        folder: &str,
        span: Span,
        warnings: &mut Warnings,
    ) {
        self.named.extend(mounted.iter().map(|path| gopath::base(path).to_owned()));
        let text = match script {
            Script::Shell(text) => text.clone(),
            Script::Exec(words) => words.join(" "),
            // A program of its own, in whatever language its first line says.
            Script::File { content, .. } => {
                self.commands.push_str(content);
                return;
            }
        };
        // Where a command runs, as long as that can be told.
        let mut place = Some(folder.to_owned());
        for (command, quoted) in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().skip_while(|word| is_prefix(word)).collect();
            if let ["cd" | "pushd", to, ..] = words[..] {
                let known = !to.contains(['$', '`', '"', '\'', '~', '-']) && !text.contains('(');
                place = place.filter(|_| known && words[0] == "cd").map(|from| gopath::absolute(&from, to));
            }
            let found = INSTALLERS.iter().enumerate().find_map(|(at, installer)| {
                let rest = installer.commands.iter().find_map(|command| rest(command, &words))?;
                Some((at, installer, rest))
            });
            if let (Some((at, installer, arguments)), Some(place), false) = (found, &place, quoted)
                && let Some(files) = installer.files_of(arguments)
                && !self.ran.contains(&at)
            {
                let go = if place == folder { String::new() } else { format!("cd {place} && ") };
                let command = format!("{go}{}", written(&words));
                self.tell(&command, installer, &files, (place, span), warnings);
                self.ran.push(at);
            }
            self.commands.push_str(command);
            self.commands.push('\n');
        }
    }

    fn tell(
        &self,
        command: &str,
        installer: &Installer,
        files: &[&str],
        (place, span): (&str, Span),
        warnings: &mut Warnings,
    ) {
        let known = |file: &&str| {
            let file = gopath::base(file);
            self.named.iter().any(|name| may_name(name, file))
                || self.commands.contains(longest_literal(file))
        };
        let holds = |whole: &Whole| Some((whole.clone(), below(place, &whole.folder)?));
        let (Some((whole, inside)), false) = (self.whole.iter().find_map(holds), files.iter().any(known))
        else {
            return;
        };
        let mut sources: Vec<String> = Vec::new();
        for file in files {
            // A file of requirements may name others beside it.
            let folder =
                file.rsplit_once('/').filter(|_| installer.files.is_empty()).map(|(folder, _)| folder);
            let source =
                format!("{inside}{}{}", if inside.is_empty() { "" } else { "/" }, folder.unwrap_or(file));
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let in_folder = files.iter().any(|file| file.contains('/'));
        let parents = installer.parents || in_folder || !inside.is_empty();
        let flag = if parents { "--parents " } else { "" };
        let message = format!(
            "`{}` makes `{command}` run again whenever any file of the context changes; above it, write `COPY {flag}{} {}` and `RUN {command}`",
            whole.text,
            sources.join(" "),
            whole.destination,
        );
        warnings.add_by(&COPY_TOO_BROAD, message, whole.span, span);
    }
}

impl Installer {
    /// The files that it needs when it is given these arguments; `None` where they say that it needs others.
    fn files_of<'a>(&'a self, arguments: &[&'a str]) -> Option<Vec<&'a str>> {
        if arguments.iter().any(|word| word.contains(['$', '`', '"', '\''])) {
            return None;
        }
        let mut files = self.files.to_vec();
        let mut goals = 0;
        let mut words = arguments.iter().take_while(|word| !is_redirection(word));
        while let Some(word) = words.next() {
            let (flag, value) =
                word.split_once('=').map_or((*word, None), |(flag, value)| (flag, Some(value)));
            let of_file = match flag {
                "-r" | "--requirement" | "-c" | "--constraint" => self.operands == Operands::RequirementFiles,
                _ => false,
            };
            match flag {
                _ if of_file => files.push(value.or_else(|| words.next().copied())?),
                flag if ELSEWHERE.contains(&flag) => return None,
                flag if WITH_VALUE.contains(&flag) && value.is_none() => drop(words.next()?),
                flag if flag.starts_with('-') => {}
                goal if self.operands == Operands::Goals && goal.starts_with("dependency:") => goals += 1,
                name if self.operands == Operands::RequirementFiles && is_package(name) => {}
                _ => return None,
            }
        }
        let has = |flag: &&str| arguments.contains(flag);
        let whole = match self.operands {
            Operands::None => self.only_with.iter().all(has),
            Operands::Goals => goals > 0,
            Operands::RequirementFiles => !files.is_empty() && files.iter().all(|file| is_inside(file)),
        };
        whole.then_some(files)
    }
}

/// What follows a command among words; `None` where they are another one. A program is known by its name in any folder.
fn rest<'w, 'a>(command: &[&str], words: &'w [&'a str]) -> Option<&'w [&'a str]> {
    let (program, subcommand) = command.split_first()?;
    let (first, rest) = words.split_first()?;
    let same = first == program
        || (!program.contains('/') && first.starts_with('/') && gopath::base(first) == *program);
    let begins =
        rest.iter().zip(subcommand).filter(|(word, wanted)| word == wanted).count() == subcommand.len();
    (same && begins).then(|| &rest[subcommand.len()..])
}

/// The simple commands of a shell's text, in order, each with whether a quote before it is open. Not exact: what is cut
/// too often is no known command.
fn commands(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut open = (false, false);
    let commands = text.split(['\n', ';', '&', '|', '(', ')', '{', '}']).map(move |command| {
        let quoted = open.0 || open.1;
        let odd = |quote: char| command.matches(quote).count() % 2 == 1;
        open = (open.0 ^ odd('\''), open.1 ^ odd('"'));
        (command.trim(), quoted)
    });
    commands.filter(|(command, _)| !command.is_empty())
}

/// Words before a command that leave it what it is: assignments, and the shell's own.
fn is_prefix(word: &str) -> bool {
    let assigned = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    assigned || ["!", "do", "else", "env", "exec", "sudo", "then", "time"].contains(&word)
}

/// A command as it would be written again, without where its output goes.
fn written(words: &[&str]) -> String {
    words.iter().copied().take_while(|word| !is_redirection(word)).collect::<Vec<_>>().join(" ")
}

fn is_redirection(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['>', '<'])
}

/// Whether a path of the command line stands below the folder that it is given in.
fn is_inside(path: &str) -> bool {
    let clean = gopath::clean(path);
    !clean.starts_with('/') && !clean.starts_with("..") && !clean.contains(['*', '?', '[', ':'])
}

/// Whether an operand of `pip install` is the name of a package, with a version perhaps, and no file.
fn is_package(word: &str) -> bool {
    let archive = [".whl", ".zip", ".gz", ".bz2", ".txt"].iter().any(|end| word.ends_with(end));
    word.starts_with(|c: char| c.is_ascii_alphanumeric()) && !word.contains(['/', ':', '*', '?']) && !archive
}

/// Whether a name or pattern that was copied may stand for a file, which may be a pattern as well.
fn may_name(name: &str, file: &str) -> bool {
    let wild = ['*', '?', '['];
    match (name.split_once(wild), name.rsplit_once(wild)) {
        _ if file.contains(wild) => name.contains(longest_literal(file)),
        (Some((before, _)), Some((_, after))) => {
            file.starts_with(before) && (after.contains(']') || file.ends_with(after))
        }
        _ => name == file,
    }
}

/// The longest part of a pattern that stands for itself.
fn longest_literal(pattern: &str) -> &str {
    pattern.split(['*', '?', '[']).max_by_key(|part| part.len()).unwrap_or_default()
}

/// What is left of a path below a folder, without a slash in front; `None` where it stands elsewhere.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warning::Policy;

    /// What is told of a stage: `COPY`s and `RUN`s in `/app`, one a line.
    fn told(stage: &str) -> Vec<String> {
        let mut warnings = Warnings::new(Policy::default());
        let mut trail = Trail::default();
        let span = Span::default();
        for line in stage.lines() {
            let (keyword, rest) = line.split_once(' ').expect("a keyword");
            if keyword == "RUN" {
                trail.runs(&Script::Shell(rest.replace("\\n", "\n")), &[], "/app", span, &mut warnings);
                continue;
            }
            let words: Vec<&str> = rest.split(' ').filter(|word| !word.starts_with("--")).collect();
            let (destination, sources) = words.split_last().expect("a destination");
            let copied = Copied {
                keyword,
                sources,
                heredocs: &[],
                destination,
                of_context: !rest.contains("--from"),
                folder: "/app",
                span,
            };
            trail.copied(&copied, &Ignore::default());
        }
        warnings.finish().0.into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn what_to_write_instead() {
        for (stage, instead) in [
            ("COPY . .\nRUN npm ci", "COPY package.json package-lock.json* ./"),
            (
                "COPY ./ /app\nRUN set -e; NODE_ENV=production npm install --omit dev 2>&1",
                "COPY package.json package-lock.json* /app/",
            ),
            (
                "ADD / ./\nRUN corepack enable && yarn --frozen-lockfile",
                "COPY package.json yarn.lock* .yarnrc* ./",
            ),
            (
                "COPY . .\nRUN pip install --no-cache-dir -r requirements.txt gunicorn",
                "COPY requirements.txt ./",
            ),
            (
                "COPY . .\nRUN /venv/bin/pip install -r requirements/prod.txt",
                "COPY --parents requirements ./",
            ),
            ("COPY . .\nRUN python3 -m pip install -r a.txt -c b.txt", "COPY a.txt b.txt ./"),
            (
                "COPY . .\nRUN cd web && npm ci && npm run build",
                "COPY --parents web/package.json web/package-lock.json* ./",
            ),
            (
                "COPY . /\nRUN pnpm i --frozen-lockfile",
                "COPY --parents app/package.json app/pnpm-lock.yaml* app/pnpm-workspace.yaml* /",
            ),
            ("COPY . .\nRUN go mod download -x", "COPY go.mod go.sum* ./"),
            ("COPY . .\nRUN poetry install --no-root --only main", "COPY pyproject.toml poetry.lock* ./"),
            ("COPY . .\nRUN mvn -B dependency:go-offline", "COPY pom.xml ./"),
            ("COPY . .\nRUN ./gradlew dependencies --no-daemon", "COPY --parents *.gradle* gradle* ./"),
            (
                "COPY . .\nRUN dotnet restore",
                "COPY --parents *.sln* **/*.*proj **/*.props [Nn]u[Gg]et.[Cc]onfig* ./",
            ),
            ("COPY . .\nRUN apt-get update\\nbundle install --jobs 4\\n", "COPY Gemfile Gemfile.lock* ./"),
        ] {
            let told = told(stage);
            assert!(
                matches!(&told[..], [only] if only.contains(&format!("`{instead}`"))),
                "{stage}: {told:?}"
            );
        }
    }

    #[test]
    fn the_command_is_one_to_paste() {
        for (command, pasted) in [
            ("npm ci --omit=dev > /dev/null", "`RUN npm ci --omit=dev`"),
            ("cd web && npm ci", "`RUN cd /app/web && npm ci`"),
            ("cd /app && A=b npm ci", "`RUN npm ci`"),
        ] {
            let told = told(&format!("COPY . .\nRUN {command}"));
            assert!(matches!(&told[..], [only] if only.ends_with(pasted)), "{command}: {told:?}");
        }
    }

    #[test]
    fn what_is_not_told() {
        for stage in [
            "RUN npm ci",
            "RUN npm ci\nCOPY . .",
            "COPY --from=x . .\nRUN npm ci",
            "COPY src .\nRUN npm ci",
            "COPY . /other\nRUN npm ci",
            "COPY package.json ./\nCOPY . .\nRUN npm ci",
            "COPY package*.json ./\nCOPY . .\nRUN npm ci",
            "COPY *.json ./\nCOPY . .\nRUN npm ci",
            "COPY --from=x /src/package.json ./\nCOPY . .\nRUN npm ci",
            "COPY conf/app.json package.json\nCOPY . .\nRUN npm ci",
            "COPY build.gradle settings.gradle ./\nCOPY . .\nRUN gradle dependencies",
            "COPY app/app.csproj app/\nCOPY . .\nRUN dotnet restore",
            "COPY requirements/prod.txt /tmp/\nCOPY . .\nRUN pip install -r requirements/prod.txt",
            "RUN npm ci\nCOPY . .\nRUN npm ci",
            "COPY . .\nRUN npm install -g pnpm",
            "COPY . .\nRUN npm install left-pad",
            "COPY . .\nRUN npm ci --prefix web",
            "COPY . .\nRUN npm run ci",
            "COPY . .\nRUN yarn build",
            "COPY . .\nRUN yarn --version",
            "COPY . .\nRUN pip install .",
            "COPY . .\nRUN pip install -e . -r requirements.txt",
            "COPY . .\nRUN pip install -r $FILE",
            "COPY . .\nRUN pip install -r /tmp/requirements.txt",
            "COPY . .\nRUN pip install -r https://host/requirements.txt",
            "COPY . .\nRUN pip install flask",
            "COPY . .\nRUN poetry install",
            "COPY . .\nRUN uv sync",
            "COPY . .\nRUN cargo build",
            "COPY . .\nRUN mvn package",
            "COPY . .\nRUN mvn dependency:go-offline package",
            "COPY . .\nRUN cd $DIR && npm ci",
            "COPY . .\nRUN cd /elsewhere && npm ci",
            "COPY . .\nRUN (cd a; npm ci); (cd b; npm ci)",
            "COPY . .\nRUN echo 'now; npm ci'",
            "COPY . .\nRUN sed -i s/a/b/ package.json && npm ci",
            "COPY . .\nRUN ./make package.json\nRUN npm ci",
            "COPY . .\nRUN if [ -f package-lock.json ]; then npm ci; fi",
        ] {
            assert_eq!(told(stage), Vec::<String>::new(), "{stage}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_command_has_an_outcome(text in "[a-z0-9 .=*'\"$&;|(){}<>/\\\\#-]{0,80}", tail in ".{0,20}") {
            told(&format!("COPY . .\nRUN {text}"));
            told(&format!("COPY {text} x\nCOPY . {text}y\nRUN pip install -r {text}"));
            told(&format!("COPY . .\nRUN cd {text} && npm ci {}", tail.replace(['\n', '\r'], " ")));
        }
    }

    #[test]
    fn a_list_of_what_is_let_in_is_not_everything() {
        let copied = Copied {
            keyword: "COPY",
            sources: &["."],
            heredocs: &[],
            destination: ".",
            of_context: true,
            folder: "/",
            span: Span::default(),
        };
        let mut trail = Trail::default();
        let patterns = ["*".to_owned(), "!package.json".to_owned()];
        trail.copied(&copied, &Ignore::new(&patterns).expect("patterns"));
        assert!(trail.whole.is_empty());
    }
}
