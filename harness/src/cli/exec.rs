//! `exec`: run a program of the user's own on kernels in VMs.

use super::{Exit, choose, out, report, vm};
use crate::arch::Arch;
use crate::coverage;
use crate::environment::environment;
use crate::interrupt;
use crate::kernels::Image;
use crate::runner;
use crate::vm::guest::Agent;
use crate::vm::{Event, Options, Plan, run_vm};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::Pid;
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use uffd_results::{End, Facts, Outcome};

/// The plan's setting with the program and its arguments, as JSON.
const COMMAND: &str = "command";

/// Where the guest keeps what the program writes, and the name under which that leaves it.
const OUTPUT: (&str, &str) = ("/tmp/output", "output");

/// More of it does not leave the guest, which says under this name how much there was.
const LONGEST_OUTPUT: u64 = 1 << 20;
const LENGTH: &str = "output-length";

/// MiB that a kernel needs to come up in, with the program.
const ROOM: u64 = 192;

/// Options of `exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "The first MiB of what the program writes is shown, and a note says if there was more. Exit \
                  codes: 0 the program ended with 0 on every kernel · 1 it did not · 2 it could not be run"
)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    kernel: choose::KernelArgs,
    #[command(flatten)]
    vm: choose::VmArgs,
    /// Write the counters of a kernel that was built with gcov to this new folder.
    #[arg(long, value_name = "DIR", requires = "kernel_image")]
    coverage: Option<PathBuf>,
    /// Memory of the VM in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(ROOM..=65_536))]
    memory: u64,
    /// Huge pages of 2 MiB that the kernel reserves.
    #[arg(long, value_name = "N", default_value_t = 16)]
    huge_pages: u32,
    /// Bound on the program's run, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// A statically linked program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(crate) fn exec(args: &ExecArgs) -> Result<Exit> {
    if !args.kernel.names_any() {
        bail!("no kernel is named: add `-k 6.12`, `--newest` or `--kernel-image PATH`");
    }
    let (program, arguments) = args.command.split_first().context("no program is named")?;
    let bytes = match std::fs::read(program) {
        Ok(bytes) => bytes,
        Err(e) => bail!("reading the program {program} failed ({e}): give the path of a file"),
    };
    let own = args.kernel.own.image(&|text| out::note(text))?;
    let arch = own.as_ref().map_or(Arch::X86, |image| image.arch);
    if let Some(why) = unfit(&bytes, arch) {
        bail!(
            "{program} can't run in a VM: {why}, and there is nothing beside it; give a program for {} \
             that is linked statically (cc -static; Rust: -C target-feature=+crt-static)",
            arch.word()
        );
    }
    let (reserved, memory) = (2 * u64::from(args.huge_pages), args.memory);
    if reserved + ROOM > memory {
        bail!(
            "{} huge pages take {reserved} MiB, and a kernel needs {ROOM} MiB beside them, but the VM has \
             {memory}: give it more with --memory, or reserve fewer with --huge-pages",
            args.huge_pages
        );
    }
    let name = Path::new(program).file_name().context("the program's path has no name")?;
    let inside = format!("/bin/{}", name.to_string_lossy());
    let command: Vec<&str> =
        std::iter::once(&*inside).chain(arguments.iter().map(String::as_str)).collect();

    let mut options = Options {
        memory_mib: args.memory,
        huge_pages: args.huge_pages,
        files: vec![(inside.clone(), bytes)],
        ..args.vm.options()
    };
    options.limits.silence += Duration::from_secs(args.deadline);
    options.settings.insert(COMMAND.into(), serde_json::to_string(&command)?);
    options.settings.insert("deadline".into(), args.deadline.to_string());
    if args.coverage.is_some() {
        options.settings.insert(vm::COVERAGE.into(), "yes".into());
    }
    let (images, fetched) = match own {
        Some(image) => (vec![image], Ok(())),
        None => args.kernel.all(&|text| out::note(text)),
    };
    if images.is_empty() || interrupt::caught().is_some() {
        return fetched.map(|()| Exit::Expected);
    }
    // A kernel that can't be had, or on which the program can't be run, costs none of the others.
    let mut exit = match fetched.inspect_err(out::error) {
        Ok(()) => Exit::Expected,
        Err(_) => Exit::Unusable,
    };
    let several = images.len() > 1;
    for image in &images {
        match on_kernel(args, image, &options, several) {
            Ok(false) if exit == Exit::Expected => exit = Exit::Different,
            Ok(_) => {}
            Err(error) => {
                out::error(&error);
                exit = Exit::Unusable;
            }
        }
        if interrupt::caught().is_some() {
            break;
        }
    }
    Ok(exit)
}

/// Runs the program on a kernel; says whether it ended with 0.
fn on_kernel(args: &ExecArgs, image: &Image, options: &Options, several: bool) -> Result<bool> {
    let (release, program) = (&image.identity.release, &args.command[0]);
    let mut options = options.clone();
    vm::of_image(image, &mut options);
    let mut counters = args.coverage.as_deref().map(coverage::Folder::create).transpose()?;
    let (mut output, mut length) = (Vec::new(), 0);
    let mut on_event = |event: Event<'_>| match event {
        Event::File { name, bytes } if name == OUTPUT.1 => bytes.clone_into(&mut output),
        Event::File { name: LENGTH, bytes } => length = number(bytes).unwrap_or(0),
        event => {
            if let Some(folder) = &mut counters {
                folder.take(&event);
            }
        }
    };
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let report = run_vm(&image.path, &[name.into_owned()], &options, &mut on_event)
        .with_context(|| format!("running {program} on {release}"))?;
    if several {
        out::note(&format!("{release}: what {program} wrote:"));
    }
    let mut stdout = out::plain_stdout();
    stdout.write_all(&output)?;
    stdout.flush()?;
    drop(stdout);
    if let Some(note) = cut(output.len() as u64, length) {
        out::note(&format!("{release}: {program}: {note}"));
    }
    for remark in vm::remarks(&report) {
        out::note(&remark);
    }
    counters.map(coverage::Folder::finish).transpose()?;
    let [outcome] = &report.outcomes[..] else { bail!("no outcome of {program} on {release}") };
    if outcome.facts.get("exit") == Some("0") {
        return Ok(true);
    }
    out::note(&format!("{release}: {program}: {outcome}"));
    Ok(false)
}

/// Why a program can't run where there are no other files, if it can't.
fn unfit(program: &[u8], arch: Arch) -> Option<String> {
    let word = |at: usize, len: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    };
    let place = |at, len| word(at, len).and_then(|n| usize::try_from(n).ok());
    if program.starts_with(b"#!") {
        return Some("it is a script, which needs an interpreter".into());
    }
    // A 64-bit little-endian ELF file for the kernel's architecture.
    if !program.starts_with(b"\x7fELF\x02\x01") || word(18, 2) != Some(arch.elf().into()) {
        return Some(format!("it is no program for {} (ELF)", arch.word()));
    }
    let (first, size, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    let mut headers = (0..count).filter_map(|n| first.checked_add(n.checked_mul(size)?));
    let interpreter = headers.find(|at| word(*at, 4) == Some(PT_INTERP))?;
    let (start, len) = (place(interpreter + 8, 8)?, place(interpreter + 32, 8)?);
    let name = program.get(start..start.checked_add(len)?)?;
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Some(format!("it is linked dynamically ({name})"))
}

/// The kind of program header that names an interpreter.
const PT_INTERP: u64 = 3;

/// The guest's side, where the plan has a command: it is the one case.
pub(super) fn agent(plan: &Plan) -> Option<Agent<'static>> {
    let command: Vec<String> = serde_json::from_str(plan.setting(COMMAND)?).ok()?;
    let deadline = Duration::from_secs(plan.setting("deadline").and_then(|n| n.parse().ok())?);
    let run = move |_: usize, _: &str| {
        execute(&command, deadline)
            .unwrap_or_else(|why| Outcome::ended(End::Broken, why, Facts::new()))
    };
    let mut counters = vm::counters(plan);
    let files = move || {
        let mut files = counters()?;
        // Not there before the program has run.
        let (output, length) = match File::open(OUTPUT.0) {
            Ok(file) => head(&file).map_err(|e| format!("can't read {}: {e}", OUTPUT.0))?,
            Err(_) => (Vec::new(), 0),
        };
        files.push((OUTPUT.1.to_owned(), output));
        files.push((LENGTH.to_owned(), length.to_string().into_bytes()));
        Ok(files)
    };
    let environment = environment(None, plan.setting("accelerator").unwrap_or_default(), None);
    let (run, files) = (Box::new(run), Box::new(files));
    Some(Agent { suite: report::suite(), environment, run, files, is_used_up: || false })
}

/// What of a file is handed out, and how long it is.
fn head(file: &File) -> std::io::Result<(Vec<u8>, u64)> {
    let mut head = Vec::new();
    file.take(LONGEST_OUTPUT).read_to_end(&mut head)?;
    Ok((head, file.metadata()?.len()))
}

/// A length as the guest says it.
fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// What there is to say of output of which `shown` bytes have come, and `length` were there.
fn cut(shown: u64, length: u64) -> Option<String> {
    (length > shown).then(|| {
        format!("wrote {length} bytes, of which the first {shown} are shown: have it write less")
    })
}

/// Runs the program as a child; the error says why that was not possible.
fn execute(command: &[String], deadline: Duration) -> Result<Outcome, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let output = File::create(OUTPUT.0).map_err(|e| format!("can't make {}: {e}", OUTPUT.0))?;
    let errors = output.try_clone().map_err(|e| format!("can't share {}: {e}", OUTPUT.0))?;
    std::fs::set_permissions(program, Permissions::from_mode(0o755))
        .map_err(|e| format!("can't make {program} executable: {e}"))?;
    runner::attend_children().map_err(|e| format!("blocking SIGCHLD: {e}"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("can't run {program} ({e}): is it linked statically?"))?;
    let id = Pid::from_raw(i32::try_from(child.id()).map_err(|e| e.to_string())?);
    let wait = |within| runner::wait(id, within).map_err(|e| format!("waiting for {program}: {e}"));
    let mut status = wait(deadline)?;
    let in_time = status.is_some();
    if !in_time {
        child.kill().map_err(|e| format!("can't kill {program}: {e}"))?;
        status = wait(runner::BURIAL)?;
    }
    let status = status.ok_or_else(|| format!("{program} was killed, and is not gone"))?;
    let mut facts = Facts::new();
    match (status.code(), status.signal()) {
        (Some(code), _) => facts.set("exit", code),
        (None, signal) => facts.set("signal", signal.unwrap_or_default()),
    }
    if in_time {
        Ok(Outcome::done(facts))
    } else {
        let detail = format!("no end within {} s", deadline.as_secs());
        Ok(Outcome::ended(End::Hang, detail, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Seek;

    #[test]
    fn a_program_that_needs_other_files_is_refused() {
        let this = std::fs::read("/proc/self/exe").expect("this program");
        assert_eq!(unfit(&this, Arch::X86), None, "tests are linked statically");
        assert!(unfit(b"#!/bin/sh", Arch::X86).is_some_and(|why| why.contains("script")));
        assert!(unfit(b"", Arch::X86).is_some_and(|why| why.contains("no program")));
        let mut dynamic = b"\x7fELF\x02\x01".to_vec();
        dynamic.resize(64 + 56, 0);
        (dynamic[18], dynamic[32], dynamic[54], dynamic[56]) = (62, 64, 56, 1);
        (dynamic[64], dynamic[64 + 8], dynamic[64 + 32]) = (3, 120, 4);
        dynamic.extend(b"/ld\0");
        assert_eq!(unfit(&dynamic, Arch::X86).as_deref(), Some("it is linked dynamically (/ld)"));
    }

    #[rstest]
    #[case(0, None)]
    #[case(LONGEST_OUTPUT, None)]
    #[case(LONGEST_OUTPUT + 1, Some("wrote 1048577 bytes, of which the first 1048576 are shown"))]
    #[case(5 << 30, Some("wrote 5368709120 bytes"))]
    fn output_that_is_cut_is_told_with_its_length(#[case] length: u64, #[case] note: Option<&str>) {
        let mut file = tempfile::tempfile().expect("a file");
        file.set_len(length).expect("a length, without room");
        file.rewind().expect("at its start");
        let (output, length) = head(&file).expect("read");
        let said =
            cut(output.len() as u64, number(length.to_string().as_bytes()).expect("a length"));
        assert_eq!(said.is_some(), note.is_some(), "{said:?}");
        assert!(note.is_none_or(|note| said.is_some_and(|said| said.starts_with(note))));
        assert!(output.len() as u64 <= LONGEST_OUTPUT);
    }
}
