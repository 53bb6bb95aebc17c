//! What a stage has come to after some of its instructions.

use graph::About;
use oci::{Config, History, ImageConfig, Platform};

use crate::{
    draft::Tree,
    gopath,
    lint::broad::Trail,
    plan::Step,
    variables::{DEFAULT_PATH, Variables, set_pair, split},
    words::plain,
};

/// The comment that marks a Dockerfile's history entries.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage so far: what `FROM stage` inherits.
#[derive(Clone)]
pub(crate) struct State {
    /// The root file system; `None` is an empty one.
    pub(crate) tree: Option<Tree>,
    /// The image config.
    pub(crate) config: ImageConfig,
    /// `ENV` and `ARG`: what expansion and `RUN` see.
    pub(crate) variables: Variables,
    /// The `ARG`s in the order in which they were declared.
    pub(crate) args: Vec<(String, Option<String>)>,
    /// What the stage is for.
    pub(crate) platform: Platform,
    /// How many layers at the bottom are a base image's.
    pub(crate) base_layers: usize,
    /// Whether the file has a `WORKDIR` for it.
    pub(crate) has_folder: bool,
    /// What was copied and run.
    pub(crate) trail: Trail,
}

impl State {
    /// `FROM scratch`.
    pub(crate) fn empty(platform: &Platform) -> State {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            config: Config { working_dir: "/".to_owned(), ..Config::default() },
            ..ImageConfig::default()
        };
        State {
            tree: None,
            config,
            variables: Variables::default(),
            args: Vec::new(),
            platform: platform.clone(),
            base_layers: 0,
            has_folder: false,
            trail: Trail::default(),
        }
    }

    /// `FROM` an image. What its config says of its own making is dropped, and so are fields that no one here knows.
    pub(crate) fn of_image(
        config: &ImageConfig,
        tree: Option<Tree>,
        layers: usize,
        platform: &Platform,
    ) -> State {
        let mut config = config.clone();
        config.created = None;
        config.rootfs.diff_ids.clear();
        config.extra.retain(|name, _| name == "os.features");
        config.config.extra.clear();
        State { tree, config, base_layers: layers, ..State::empty(platform) }
    }

    /// What every stage begins with: `PATH`, and the config's variables over those of inherited arguments.
    pub(crate) fn begin(&mut self) {
        let env = &mut self.config.config.env;
        if self.config.os != "windows" && !env.iter().any(|pair| split(pair).0 == "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in &self.config.config.env {
            let (name, value) = split(pair);
            self.variables.set(name, value);
        }
        if !self.config.config.working_dir.is_empty() && !self.config.config.working_dir.starts_with('/') {
            self.config.config.working_dir = self.folder();
        }
    }

    /// The current folder: absolute and clean.
    pub(crate) fn folder(&self) -> String {
        gopath::absolute("/", &self.config.config.working_dir)
    }

    /// `ENV`.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.variables.set(name, value);
        set_pair(&mut self.config.config.env, &plain(name), &plain(value));
    }

    /// The shell form's command line.
    pub(crate) fn with_shell(&self, text: &str) -> Vec<String> {
        let mut args = match &self.config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ if self.config.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            _ => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        };
        args.push(text.to_owned());
        args
    }

    /// Notes an instruction that changed the config only.
    pub(crate) fn record(&mut self, text: &str) {
        self.push_history(text, true);
    }

    /// Notes an instruction that made a layer.
    pub(crate) fn record_layer(&mut self, text: &str) {
        self.push_history(text, false);
    }

    fn push_history(&mut self, text: &str, empty_layer: bool) {
        self.config.history.push(History {
            created_by: Some(plain(text)),
            comment: Some(COMMENT.to_owned()),
            empty_layer,
            ..History::default()
        });
    }
}

/// How progress names a stage's steps: `[build 2/5] `.
pub(crate) struct Progress {
    /// The platform, where several are built for.
    pub(crate) platform: Option<Platform>,
    /// The stage's name.
    pub(crate) stage: String,
    /// Whether people are told it: not where the file has one stage only.
    pub(crate) is_shown: bool,
    /// How many steps there are: those that make layers, and a base that is an image.
    pub(crate) total: usize,
    /// How many have been named.
    pub(crate) named: usize,
    /// Whether the cache must not answer for the stage.
    pub(crate) ignore_cache: bool,
}

impl Progress {
    /// What people are told of the next step's vertex.
    ///
    /// `shown` is the instruction with variables replaced, `history` its text in the history.
    pub(crate) fn next(&mut self, step: &Step<'_>, shown: &str, history: &str) -> About {
        self.named += 1;
        let about = self.current(step.trigger, shown, history);
        About { source: Some(range(step.span)), ..about }
    }

    /// As [`Progress::next`], for one more vertex of the same step.
    pub(crate) fn current(&self, trigger: bool, shown: &str, history: &str) -> About {
        let mut name = "[".to_owned();
        if let Some(platform) = &self.platform {
            name.push_str(&format!("{platform} "));
        }
        if self.is_shown {
            name.push_str(&format!("{} ", self.stage));
        }
        let width = self.total.max(1).ilog10() as usize + 1;
        name.push_str(&format!("{:width$}/{}] ", self.named, self.total));
        if trigger {
            name.push_str("ONBUILD ");
        }
        name.push_str(shown);
        About {
            name: plain(&name),
            instruction: plain(history),
            stage: if self.is_shown { self.stage.clone() } else { String::new() },
            stage_name: self.stage.clone(),
            ignore_cache: self.ignore_cache,
            ..About::default()
        }
    }
}

/// A place of the file as the graph has it.
pub(crate) fn range(span: dockerfile_parser::Span) -> graph::SourceRange {
    graph::SourceRange { start: span.start, end: span.end }
}
