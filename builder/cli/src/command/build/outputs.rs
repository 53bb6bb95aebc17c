//! Where results go: `--output`, `--push`, `--load` and what stands to them.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use engine::{Destination, ImageForm, Output, Push};

use crate::{
    arguments::Build,
    failure::Failure,
    flags::{self, Asked},
};

/// The outputs, and warnings of what changes nothing.
pub fn outputs(arguments: &Build) -> Result<(Vec<Output>, Vec<String>), Failure> {
    let annotations = flags::annotations(&arguments.annotations)?;
    let (mut outputs, mut warnings) = (Vec::new(), Vec::new());
    for text in arguments.outputs.iter().filter(|text| !text.is_empty()) {
        let asked: Asked = flags::output(text, arguments.push)?;
        outputs.push(asked.output);
        warnings.extend(asked.warnings);
    }
    let image = |output: &Output| matches!(output, Output::Image { .. });
    if arguments.push && !outputs.iter().any(image) {
        outputs.push(Output::Image { store: true, push: Some(Push::default()), form: ImageForm::default() });
    }
    let loaded = |output: &Output| matches!(output, Output::DockerEngine { .. });
    if arguments.load && !outputs.iter().any(loaded) {
        outputs.push(Output::DockerEngine { context: None, form: ImageForm::default() });
    }
    if outputs.is_empty() {
        outputs.push(Output::store());
    }
    outputs.iter().try_for_each(|output| pushable(output, &arguments.tags))?;
    apart(&outputs)?;
    if !annotations.is_empty() && outputs.iter().all(|output| output.form().is_none()) {
        warnings.push("`--annotation` changes nothing: no output is an image".to_owned());
    }
    for form in outputs.iter_mut().filter_map(Output::form_mut) {
        form.annotations.extend(annotations.clone());
    }
    Ok((outputs, warnings))
}

/// What is pushed has a name, and what is pushed by digest has no tag.
fn pushable(output: &Output, tags: &[String]) -> Result<(), Failure> {
    let Output::Image { push: Some(push), form, .. } = output else { return Ok(()) };
    if tags.is_empty() && form.names.is_empty() && form.dangling.is_none() {
        return Err(Failure::usage_with("what is pushed needs a name", "--push -t REGISTRY/NAME:TAG"));
    }
    match tags.iter().find(|tag| push.by_digest && flags::has_tag(tag)) {
        None => Ok(()),
        Some(tagged) => Err(Failure::usage_with(
            format!("--tag {tagged} has a tag, and `push-by-digest` pushes without one"),
            "-o type=image,name=REGISTRY/NAME,push-by-digest=true,push=true, and no --tag",
        )),
    }
}

/// A path as it stands in the file system: `a`, `./a` and a link to it are one place.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = path.canonicalize().or_else(|_| {
        let folder = folder.canonicalize()?;
        Ok::<_, std::io::Error>(path.file_name().map_or(folder.clone(), |name| folder.join(name)))
    });
    // A folder that is yet to be made is no link.
    whole.or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// No two outputs are written over each other, and none into a terminal.
fn apart(outputs: &[Output]) -> Result<(), Failure> {
    let mut taken: BTreeSet<Option<PathBuf>> = BTreeSet::new();
    for output in outputs {
        let to = match output {
            Output::Local { to, .. } => Some(to),
            Output::Oci { to, .. } | Output::Docker { to, .. } | Output::Tar { to, .. } => match to {
                Destination::Path(to) => Some(to),
                Destination::Stdout => None,
            },
            Output::Image { .. } | Output::DockerEngine { .. } | Output::CacheOnly => continue,
        };
        if to.is_none() && std::io::stdout().is_terminal() {
            let why = "an archive is not written to a terminal";
            return Err(Failure::usage_with(why, "-o type=…,dest=FILE, or `> FILE`"));
        }
        if !taken.insert(to.map(|to| place(to))) {
            let place = to.map_or_else(|| "standard output".to_owned(), |to| to.display().to_string());
            return Err(Failure::usage_with(
                format!("two outputs go to {place}"),
                "-o type=…,dest=FILE with another FILE for each",
            ));
        }
    }
    Ok(())
}
