//! Instructions that change the image config and make no layer.

use dockerfile_parser::{
    ParseError,
    instruction::{
        Arg, Cmd, Command, Entrypoint, Expose, Healthcheck, Instruction, Pair, Stopsignal, Volume,
    },
    port, signal,
};
use oci::config::{Empty, Healthcheck as Health};

use crate::{
    LowerError, gotext,
    lint::settings,
    plan::Step,
    stage::{Building, Lowerer},
    state::State,
    variables::NOT_IN_ENVIRONMENT,
    words::plain,
};

impl Lowerer<'_> {
    /// Applies an instruction that makes no layer.
    pub(crate) fn configure(&mut self, building: &mut Building, step: &Step<'_>) -> Result<(), LowerError> {
        self.check(building, step);
        let state = &mut building.state;
        match &*step.instruction {
            Instruction::Arg(arg) => self.arg(building, step, arg)?,
            Instruction::Env(env) => {
                let mut text = "ENV".to_owned();
                let pairs = self.pairs(state, &env.pairs)?;
                for ((name, value), pair) in pairs.into_iter().zip(&env.pairs) {
                    settings::secret("ENV", &name, pair.key.span, &mut self.words.warnings);
                    text.push_str(&format!(" {name}={value}"));
                    state.set_env(&name, &value);
                }
                state.record(&text);
            }
            Instruction::Label(label) => {
                let mut text = "LABEL".to_owned();
                for (name, value) in self.pairs(state, &label.pairs)? {
                    text.push_str(&format!(" {name}={value}"));
                    state.config.config.labels.insert(plain(&name), plain(&value));
                }
                state.record(&text);
            }
            Instruction::User(user) => {
                let user = self.words.word(state, &user.user)?;
                state.record(&format!("USER {user}"));
                state.config.config.user = plain(&user);
            }
            Instruction::Cmd(Cmd { command }) => {
                let args = command_line(state, command);
                state.record(&format!("CMD {}", gotext::quoted_list(&args)));
                let args: Vec<String> = args.iter().map(|arg| plain(arg)).collect();
                state.config.config.cmd = (!args.is_empty()).then_some(args);
                state.config.config.args_escaped = true;
            }
            Instruction::Entrypoint(Entrypoint { command }) => {
                let args = command_line(state, command);
                state.record(&format!("ENTRYPOINT {}", gotext::quoted_list(&args)));
                let args: Vec<String> = args.iter().map(|arg| plain(arg)).collect();
                state.config.config.entrypoint = (!args.is_empty()).then_some(args);
                if !building.latest.contains_key("CMD") {
                    state.config.config.cmd = None;
                }
            }
            Instruction::Shell(shell) => {
                let shell: Vec<String> = shell.shell.iter().map(|word| plain(&word.text)).collect();
                state.record(&format!("SHELL {}", gotext::list(&shell)));
                state.config.config.shell = Some(shell);
            }
            Instruction::Healthcheck(check) => healthcheck(state, check),
            Instruction::Expose(expose) => self.expose(state, expose)?,
            Instruction::Volume(volume) => self.volume(state, volume)?,
            Instruction::Stopsignal(signal) => self.stopsignal(state, signal)?,
            Instruction::Maintainer(maintainer) => {
                let author = plain(&maintainer.author.text);
                state.record(&format!("MAINTAINER {author}"));
                state.config.author = Some(author);
            }
            // The only one without a history entry, as in BuildKit.
            Instruction::Onbuild(onbuild) => state.config.config.on_build.push(plain(&onbuild.trigger)),
            // These make layers; each has its own file.
            Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_) => {}
        }
        Ok(())
    }

    /// The build checks of what is not expanded.
    fn check(&mut self, building: &mut Building, step: &Step<'_>) {
        let warnings = &mut self.words.warnings;
        match &*step.instruction {
            Instruction::Env(env) => settings::legacy(step, env.legacy, warnings),
            Instruction::Label(label) => settings::legacy(step, label.legacy, warnings),
            Instruction::Cmd(Cmd { command }) | Instruction::Entrypoint(Entrypoint { command }) => {
                settings::once(building, step, warnings);
                settings::exec_form(&building.state, step, command, warnings);
            }
            Instruction::Healthcheck(_) => settings::once(building, step, warnings),
            _ => {}
        }
    }

    /// Names and values, all expanded with the variables from before the line.
    fn pairs(&mut self, state: &State, pairs: &[Pair]) -> Result<Vec<(String, String)>, LowerError> {
        let pair =
            |pair: &Pair| Ok((self.words.word(state, &pair.key)?, self.words.word(state, &pair.value)?));
        pairs.iter().map(pair).collect()
    }

    /// `ARG`: the request's value, else the default, else the global argument's value.
    fn arg(&mut self, building: &mut Building, step: &Step<'_>, arg: &Arg) -> Result<(), LowerError> {
        let state = &mut building.state;
        let mut text = "ARG".to_owned();
        for arg in &arg.names {
            let name = &arg.name.text;
            settings::secret("ARG", name, arg.name.span, &mut self.words.warnings);
            let value = match (self.request.build_args.get(name), &arg.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.words.word(state, default)?),
                (None, None) => self.globals.get(name).map(str::to_owned),
            };
            let inherited =
                value.is_some() && arg.value.is_none() && !self.request.build_args.contains_key(name);
            building.uses.argument(arg, value.as_deref(), inherited, step.span);
            text.push_str(&format!(" {name}"));
            if let Some(value) = &value {
                text.push_str(&format!("={value}"));
                if !NOT_IN_ENVIRONMENT.contains(&&**name) {
                    state.variables.set(name, value);
                }
            }
            state.args.push((name.clone(), value));
        }
        state.record(&text);
        Ok(())
    }

    fn expose(&mut self, state: &mut State, expose: &Expose) -> Result<(), LowerError> {
        let mut ports = Vec::new();
        for word in &expose.ports {
            for text in self.words.words(state, word)? {
                settings::port(&text, word.span, &mut self.words.warnings);
                let parsed = port::parse(&text).map_err(|error| ParseError::new(error, word.span))?;
                ports.extend(parsed.iter().map(ToString::to_string));
            }
        }
        state.record(&format!("EXPOSE {}", gotext::list(&ports)));
        state.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }

    fn volume(&mut self, state: &mut State, volume: &Volume) -> Result<(), LowerError> {
        let mut paths = Vec::with_capacity(volume.paths.len());
        for word in &volume.paths {
            let path = self.words.word(state, word)?;
            if path.is_empty() {
                let kind = dockerfile_parser::ErrorKind::EmptyVolume;
                return Err(ParseError::new(kind, word.span).into());
            }
            paths.push(path);
        }
        state.record(&format!("VOLUME {}", gotext::list(&paths)));
        state.config.config.volumes.extend(paths.iter().map(|path| (plain(path), Empty {})));
        Ok(())
    }

    fn stopsignal(&mut self, state: &mut State, stopsignal: &Stopsignal) -> Result<(), LowerError> {
        let word = &stopsignal.signal;
        let text = self.words.word(state, word)?;
        signal::parse(&text).map_err(|error| ParseError::new(error, word.span))?;
        state.record(&format!("STOPSIGNAL {text}"));
        state.config.config.stop_signal = Some(text);
        Ok(())
    }
}

fn command_line(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) => state.with_shell(&text.text),
        Command::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
    }
}

fn healthcheck(state: &mut State, check: &Healthcheck) {
    let health = match check {
        Healthcheck::None => Health { test: vec!["NONE".to_owned()], ..Health::default() },
        Healthcheck::Check(check) => {
            let form = match &check.command {
                Command::Shell(_) => "CMD-SHELL",
                Command::Exec(_) => "CMD",
            };
            let command = check.command.texts().into_iter().map(plain);
            Health {
                test: std::iter::once(form.to_owned()).chain(command).collect(),
                interval: check.interval_nanoseconds,
                timeout: check.timeout_nanoseconds,
                start_period: check.start_period_nanoseconds,
                start_interval: check.start_interval_nanoseconds,
                retries: i64::from(check.retries),
            }
        }
    };
    let Health { test, interval, timeout, start_period, start_interval, retries } = &health;
    state.record(&format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{retries}}}",
        gotext::list(test),
        gotext::duration(*interval),
        gotext::duration(*timeout),
        gotext::duration(*start_period),
        gotext::duration(*start_interval),
    ));
    state.config.config.healthcheck = Some(health);
}
