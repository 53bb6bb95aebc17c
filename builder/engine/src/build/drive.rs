//! The only loop of the engine that waits: the solver's actions out, the world's events in.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use solver::{Action, Event, Id, Key, Outcome, Solver};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    build::report::Reporter,
    cancel::Cancel,
    effect::{Effects, Job},
    error::{Cause, Error},
    result::VertexResult,
};

/// Something that happened, and why if it is a failure.
struct Answer {
    event: Event<VertexResult>,
    cause: Option<Cause>,
}

/// Drives wanted vertices to their results.
pub(crate) struct Driver<'a> {
    solve: &'a mut Solver<VertexResult>,
    effects: &'a Arc<Effects>,
    reporter: Reporter,
    sender: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    running: BTreeMap<Id, Cancel>,
    failure: Option<Error>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(solve: &'a mut Solver<VertexResult>, effects: &'a Arc<Effects>) -> Driver<'a> {
        let (sender, answers) = unbounded_channel();
        let reporter = Reporter::new(effects.sink.clone(), effects.clock.clone());
        Driver { solve, effects, reporter, sender, answers, running: BTreeMap::new(), failure: None }
    }

    /// Makes the results of `roots`.
    ///
    /// # Errors
    /// The first failure, of a step or of writing a record; what was finished by then is in the cache. [`Error::Cancelled`]
    /// when `cancel` was set. Nothing runs any more when this returns.
    pub(crate) async fn make(mut self, roots: &[Id], cancel: &Cancel) -> Result<Vec<VertexResult>, Error> {
        roots.iter().for_each(|root| self.solve.want(*root));
        let mut stopping = false;
        loop {
            while let Some(action) = self.solve.next_action() {
                self.start(action);
            }
            if self.solve.is_finished() {
                break;
            }
            tokio::select! {
                answer = self.answers.recv() => {
                    let answer = answer.expect("this function holds a sender");
                    self.happened(answer);
                }
                () = cancel.wait(), if !stopping => {
                    stopping = true;
                    roots.iter().for_each(|root| self.solve.release(*root));
                }
            }
            if !stopping {
                self.failure = self.failure.or_else(|| self.effects.unwritten().map(Error::from));
            }
            if self.failure.is_some() && !stopping {
                // The first failure is the build's: what else runs is for nobody.
                stopping = true;
                roots.iter().for_each(|root| self.solve.release(*root));
            }
        }
        let unwritten = self.effects.written().await;
        if let Some(error) = self.failure.or(unwritten.map(Error::from)) {
            return Err(error);
        }
        let result = |root: &Id| match self.solve.outcome(*root) {
            Outcome::Done(result, _) => Ok(result.clone()),
            _ => Err(Error::Cancelled),
        };
        roots.iter().map(result).collect()
    }

    fn start(&mut self, action: Action<VertexResult>) {
        match action {
            Action::Fingerprint { vertex, inputs } => self.fingerprint(vertex, &inputs),
            Action::LookUp { vertex, key } => self.look_up(vertex, key),
            Action::Identify { vertex, inputs } => {
                let (effects, graph_vertex) = (self.effects.clone(), self.solve.vertex(vertex).clone());
                self.answer_blocking(vertex, move || {
                    let inputs = effects.identify(&graph_vertex, &inputs)?;
                    Ok(Event::Identified { vertex, inputs })
                });
            }
            Action::Run { vertex, inputs } => self.run(vertex, inputs),
            // Some microseconds each, and only where two processes could run at once.
            Action::Weigh { vertex } => {
                let bytes = self.effects.weight(self.solve.vertex(vertex));
                self.solve.handle(Event::Weighed { vertex, bytes });
            }
            Action::Measure => {
                let bytes = sandbox::available_memory().unwrap_or(u64::MAX);
                self.solve.handle(Event::Measured { bytes });
            }
            Action::Cancel { vertex } => {
                if let Some(cancel) = self.running.get(&vertex) {
                    cancel.set();
                }
            }
            Action::Release { .. } => {}
        }
    }

    fn fingerprint(&mut self, vertex: Id, inputs: &[usize]) {
        let locals: Vec<Id> = inputs.iter().map(|input| self.solve.inputs(vertex)[*input].0).collect();
        for local in &locals {
            self.reporter.started(self.solve, *local);
        }
        if self.solve.is_remote(vertex) {
            self.reporter.started(self.solve, vertex);
        }
        let sources: Vec<graph::Vertex> = locals.iter().map(|id| self.solve.vertex(*id).clone()).collect();
        let (effects, graph_vertex) = (self.effects.clone(), self.solve.vertex(vertex).clone());
        let positions = inputs.to_vec();
        self.answer_blocking(vertex, move || {
            let mut digests = Vec::with_capacity(sources.len());
            for (source, position) in sources.iter().zip(positions) {
                digests.push(effects.fingerprint(&graph_vertex, position, source)?);
            }
            let own = effects.own(&graph_vertex)?;
            Ok(Event::Fingerprinted { vertex, inputs: digests, own })
        });
    }

    fn look_up(&mut self, vertex: Id, key: Key) {
        // A few microseconds: not worth a task.
        let definition = self.solve.definition(vertex);
        let event =
            self.effects.look_up(self.solve.vertex(vertex), key, definition).map(|found| match found {
                Ok(result) => Event::Found { vertex, result },
                Err(operation_known) => Event::Missing { vertex, operation_known },
            });
        self.send(vertex, event);
    }

    fn run(&mut self, vertex: Id, inputs: Vec<(VertexResult, u32)>) {
        self.reporter.started(self.solve, vertex);
        let cancel = Cancel::new();
        self.running.insert(vertex, cancel.clone());
        let job = Job {
            vertex: self.solve.vertex(vertex).clone(),
            digest: self.solve.digest(vertex).digest(),
            definition: self.solve.definition(vertex).map(|(key, list)| (key, list.to_vec())),
            own: self.solve.own(vertex).to_vec(),
            inputs,
            may_be_known: !self.solve.is_tainted(vertex),
            cancel,
        };
        let (effects, sender) = (self.effects.clone(), self.sender.clone());
        let answer = move |ran: Result<VertexResult, Cause>| {
            let answer = match ran {
                Ok(result) => Answer { event: Event::Finished { vertex, result }, cause: None },
                Err(Cause::Cancelled) => Answer { event: Event::Cancelled { vertex }, cause: None },
                Err(cause) => Answer { event: Event::Failed { vertex }, cause: Some(cause) },
            };
            // The driver lives until every running vertex has answered.
            let _answered = sender.send(answer);
        };
        if job.waits_for_network() {
            tokio::spawn(async move {
                // In a task of its own, so that a panic is an answer too.
                let ran = tokio::spawn(effects.pull_source(job)).await;
                answer(ran.unwrap_or_else(|error| Err(Cause::Task(error.to_string()))));
            });
        } else {
            // From one thread to the other and back: what is handed on by tasks wakes several for each step.
            tokio::task::spawn_blocking(move || {
                let ran = catch_unwind(AssertUnwindSafe(|| effects.run(job)));
                match ran.unwrap_or_else(|panicked| Err(Cause::panicked(&*panicked))) {
                    Ok((result, Some(rest))) => {
                        answer(Ok(result));
                        rest.finish(effects);
                    }
                    other => {
                        // The last one to have them tidies up behind the build. Whoever hears the answer may end the program.
                        drop(effects);
                        answer(other.map(|(result, _)| result));
                    }
                }
            });
        }
    }

    fn answer_blocking(
        &mut self,
        vertex: Id,
        work: impl FnOnce() -> Result<Event<VertexResult>, Cause> + Send + 'static,
    ) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let done = tokio::task::spawn_blocking(work).await;
            let answer = match done.unwrap_or_else(|error| Err(Cause::Task(error.to_string()))) {
                Ok(event) => Answer { event, cause: None },
                Err(Cause::Cancelled) => Answer { event: Event::Cancelled { vertex }, cause: None },
                Err(cause) => Answer { event: Event::Failed { vertex }, cause: Some(cause) },
            };
            let _answered = sender.send(answer);
        });
    }

    fn send(&mut self, vertex: Id, event: Result<Event<VertexResult>, Cause>) {
        let answer = match event {
            Ok(event) => Answer { event, cause: None },
            Err(cause) => Answer { event: Event::Failed { vertex }, cause: Some(cause) },
        };
        let _answered = self.sender.send(answer);
    }

    fn happened(&mut self, answer: Answer) {
        match &answer.event {
            Event::Found { vertex, .. } => self.reporter.cached(self.solve, *vertex),
            Event::Finished { vertex, result } => {
                self.running.remove(vertex);
                self.reporter.completed(self.solve, *vertex, result.was_cached(), None);
            }
            Event::Failed { vertex } => self.failed(*vertex, answer.cause),
            Event::Cancelled { vertex } => {
                self.running.remove(vertex);
                self.reporter.completed(self.solve, *vertex, false, Some("canceled".to_owned()));
            }
            Event::Fingerprinted { vertex, .. } => {
                for (input, _) in self.solve.inputs(*vertex).to_vec() {
                    self.reporter.completed_if_local(self.solve, input);
                }
            }
            Event::Missing { .. }
            | Event::Identified { .. }
            | Event::Weighed { .. }
            | Event::Measured { .. } => {}
        }
        self.solve.handle(answer.event);
    }

    fn failed(&mut self, vertex: Id, cause: Option<Cause>) {
        self.running.remove(&vertex);
        let cause = cause.unwrap_or_else(|| Cause::Task("a vertex failed without a cause".to_owned()));
        self.reporter.completed(self.solve, vertex, false, Some(cause.to_string()));
        let about = &self.solve.vertex(vertex).about;
        self.failure.get_or_insert(Error::Vertex {
            vertex: about.name.clone(),
            digest: self.solve.digest(vertex).digest(),
            source_range: about.source,
            cause: Box::new(cause),
        });
    }
}
