//! `explore` on the running kernel: it must agree with itself, and say what it was asked.

mod shared;

use rstest::rstest;
use serde_json::Value;
use shared::{refused, run, text};

fn lines(stdout: &[u8]) -> Vec<Value> {
    text(stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_kernel_that_is_asked_twice_agrees_with_itself() {
    let output = run(&["explore", "--seed", "7", "--steps", "2000", "--format", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let lines = lines(&output.stdout);
    let [head] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&head["steps"], &head["sequences"]), (&2000.into(), &200.into()));
    assert_eq!((&head["differences"], &head["unanswered"]), (&0.into(), &0.into()), "{head}");
}

#[test]
fn a_sequence_by_its_text_is_asked_and_shown() {
    let steps = "map anon a0..6; open 1; register 1 missing a0..6; user-read a2; zeropage 1 a2";
    let output = run(&["explore", "--sequence", steps]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for words in [steps, "5=zeropage=0;field=4096;w4=ran:zero;queue-1=0/0", "no difference"] {
        assert!(shown.contains(words), "{words:?} is not in: {shown}");
    }
}

#[rstest]
#[case(&["--sequence", "copy 1 a2"], &["context 1 is not open"])]
#[case(&["--sequence", "dance"], &["dance"])]
#[case(&["--length", "99"], &["--length"])]
#[case(&["--steps", "0"], &["--steps"])]
#[case(&["-k", "banana"], &["banana"])]
#[case(&["-k", "6.1", "-k", "6.12", "-k", "7.3"], &["3 kernels", "one or two"])]
#[case(&["--accelerator", "tcg"], &["--accelerator", "-k 6.12"])]
#[case(&["-k", "6.*"], &["6.*", "two are compared"])]
#[case(&["--model", "-k", "6.1", "-k", "6.12"], &["--model", "two are named"])]
fn bad_input_is_refused_with_a_word(#[case] arguments: &[&str], #[case] words: &[&str]) {
    let output = run(&[&["explore"], arguments].concat());
    refused(&output, words);
}

/// What the running kernel breaks is known: anything else is a rule that claims too much.
#[test]
fn the_running_kernel_keeps_the_documented_rules_but_for_what_is_known() {
    // Each sequence that hangs takes its deadline: this seed has none.
    let seed = ["--seed", "5", "--steps", "2000", "--shrink", "0"];
    let output = run(&[&["explore", "--model", "--format", "jsonl"][..], &seed].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    for line in &lines(&output.stdout)[1..] {
        // mremap takes the registration of its neighbour: `changes/adjacent`.
        let is_known = line["verb"].as_str().is_some_and(|verb| verb.starts_with("mremap"))
            && line["fact"].as_str().is_some_and(|fact| fact.ends_with("-reg"))
            && line["rule"].as_str().is_some_and(|rule| rule.contains("outside its range"));
        // A guard over what is protected never returns: `kinds/guard-marked`.
        let steps = line["sequence"].as_str().unwrap_or_default();
        let is_guard =
            line["b"] == "hang" && steps.contains("guard") && steps.contains("writeprotect");
        assert!(is_known || is_guard, "{line}");
    }
}
