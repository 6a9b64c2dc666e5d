//! Goes through the targets: writes their seeds, runs each for its share of the time, and says what
//! came of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{KEYS, TARGET, TARGETS, Target};

/// What libFuzzer printed about one run.
#[derive(Default)]
struct Report {
    executions: u64,
    coverage: u64,
    corpus: u64,
}

/// `SECONDS [TARGET...]`; the exit status.
pub fn run(mut arguments: impl Iterator<Item = String>) -> i32 {
    let Some(seconds) = arguments.next().and_then(|text| text.parse::<u64>().ok()) else {
        eprintln!("usage: counterfoil-fuzz SECONDS [TARGET...]");
        return 2;
    };
    let wanted: Vec<String> = arguments.collect();
    if let Some(unknown) = wanted.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("no target {unknown:?}; there are {}", names.join(" "));
        return 2;
    }
    let is_wanted = |target: &&Target| wanted.is_empty() || wanted.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(is_wanted).collect();
    let share = (seconds / targets.len() as u64).max(1);
    println!("{share} seconds for each of {} targets", targets.len());
    println!("{:<22}{:>12}{:>10}{:>8}", "target", "executions", "coverage", "corpus");
    let mut failed = 0;
    for target in targets {
        match fuzz(target, share) {
            Ok(report) => println!(
                "{:<22}{:>12}{:>10}{:>8}",
                target.name, report.executions, report.coverage, report.corpus
            ),
            Err(complaint) => {
                failed += 1;
                println!("{:<22}FAILED\n{complaint}", target.name);
            }
        }
    }
    i32::from(failed > 0)
}

fn fuzz(target: &Target, seconds: u64) -> Result<Report, String> {
    let failed = |error: std::io::Error| error.to_string();
    let root = PathBuf::from("target/fuzz");
    let (corpus, crashes) = (root.join("corpus").join(target.name), root.join("crashes"));
    std::fs::create_dir_all(&corpus).map_err(failed)?;
    std::fs::create_dir_all(&crashes).map_err(failed)?;
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), seed).map_err(failed)?;
    }
    let program = std::env::current_exe().map_err(failed)?;
    let prefix = crashes.join(format!("{}-", target.name));
    let output = Command::new(&program)
        .env(TARGET, target.name)
        .env("COUNTERFOIL_HOME", KEYS)
        .env_remove("COUNTERFOIL_KEY")
        .env_remove("COUNTERFOIL_PASSWORD")
        .env("RUST_BACKTRACE", "1")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}", prefix.display()))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-max_len=12288"])
        .arg(&corpus)
        .output()
        .map_err(failed)?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(explain(target, &program, &log));
    }
    let report = read(&log);
    // Without instrumentation libFuzzer still runs, blindly.
    match report.coverage {
        0 => Err(format!("nothing is instrumented: no coverage was reported\n{log}")),
        _ => Ok(report),
    }
}

fn explain(target: &Target, program: &Path, log: &str) -> String {
    // From the complaint to the frames of this program; libFuzzer's own say nothing.
    let complaint = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let own = |line: &&str| !line.contains("__libfuzzer_sys_run");
    let lines = log.lines().skip_while(|line| !complaint(line)).take_while(own).take(60);
    let shown = lines.collect::<Vec<_>>().join("\n");
    let shown = if shown.is_empty() { log } else { &shown };
    let input = log.rsplit("Test unit written to ").next().and_then(|rest| rest.lines().next());
    let replay = match input.filter(|path| Path::new(path).exists()) {
        Some(input) => {
            format!("replay: COUNTERFOIL_HOME={KEYS} {TARGET}={} {} {input}", target.name, program.display())
        }
        None => "libFuzzer wrote no input".into(),
    };
    format!("{shown}\n{replay}")
}

/// The last of libFuzzer's status lines, `#1234 DONE cov: 56 ft: 78 corp: 9/10b ...`, and its count.
fn read(log: &str) -> Report {
    let after = |line: &str, word: &str| {
        let rest = line.split_once(word)?.1.trim_start();
        rest[..rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    let mut report = Report::default();
    for line in log.lines() {
        report.coverage = after(line, " cov:").unwrap_or(report.coverage);
        report.corpus = after(line, " corp:").unwrap_or(report.corpus);
        report.executions = after(line, "number_of_executed_units:").unwrap_or(report.executions);
    }
    report
}
