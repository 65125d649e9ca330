//! Threads that share work which comes piece by piece: kernels are fetched one after the other, and asked side by
//! side.

use anyhow::{Result, anyhow};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Has so many threads work on what `fetch` hands out, and gives what they make of it to `take`, in this thread and as
/// it comes. Returns what became of fetching; whatever panics, nobody waits for who is gone.
pub(super) fn share<T: Send, R: Send>(
    workers: usize,
    fetch: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()> + Send,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R),
) -> Result<()> {
    let (send, receive) = sync_channel::<T>(workers);
    let (send_done, done) = sync_channel::<R>(workers);
    // The workers' alone: it goes with the last of them, and the fetcher is told.
    let receive = Arc::new(Mutex::new(receive));
    thread::scope(|scope| {
        let mut hands = Vec::new();
        for _ in 0..workers {
            let (receive, send_done, work) = (Arc::clone(&receive), send_done.clone(), &work);
            hands.push(scope.spawn(move || {
                while let Some(piece) = next(&receive) {
                    if send_done.send(work(piece)).is_err() {
                        break;
                    }
                }
            }));
        }
        drop((receive, send_done));
        let fetching = scope.spawn(move || {
            fetch(&mut |piece| send.send(piece).map_err(|_| anyhow!("nobody is left to take it")))
        });
        // To the end in any case: who has made something waits for it to be taken.
        for result in done {
            take(result);
        }
        let fetched = fetching.join().unwrap_or_else(|_| Err(anyhow!("fetching panicked")));
        // Each is waited for; of one that is not, the scope would panic itself.
        let panicked = hands.into_iter().filter_map(|hand| hand.join().err()).count();
        match panicked {
            0 => fetched,
            n => Err(anyhow!("{n} of {workers} threads panicked: see above, and report it")),
        }
    })
}

fn next<T>(pieces: &Mutex<Receiver<T>>) -> Option<T> {
    pieces.lock().ok()?.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use rstest::rstest;

    /// Hands out so many numbers.
    fn numbers(n: u32) -> impl FnOnce(&mut dyn FnMut(u32) -> Result<()>) -> Result<()> {
        move |hand_out| (0..n).try_for_each(hand_out)
    }

    #[rstest]
    fn every_piece_is_worked_on_once(#[values(1, 2, 7)] workers: usize) {
        let mut taken = Vec::new();
        share(workers, numbers(50), |n| n * 2, |n| taken.push(n)).expect("all went well");
        taken.sort_unstable();
        assert_eq!(taken, (0..50).map(|n| n * 2).collect::<Vec<_>>());
    }

    /// The fetcher has more to hand out than there is room for.
    #[rstest]
    fn where_all_workers_have_panicked_nobody_waits_for_them(#[values(1, 3)] workers: usize) {
        let mut taken = 0;
        let work = |n: u32| if n < 5 { n } else { panic!("as this test wants it") };
        let error = share(workers, numbers(1000), work, |_| taken += 1).expect_err("it is told");
        assert!(error.to_string().contains(&format!("{workers} of {workers} threads panicked")));
        assert_eq!(taken, 5, "what was made before is taken");
    }

    #[rstest]
    #[case(false, "no more")]
    #[case(true, "fetching panicked")]
    fn what_came_before_fetching_failed_is_taken(#[case] panics: bool, #[case] why: &str) {
        let fetch = move |hand_out: &mut dyn FnMut(u32) -> Result<()>| {
            hand_out(1)?;
            assert!(!panics, "as this test wants it");
            bail!("no more")
        };
        let mut taken = Vec::new();
        let error = share(2, fetch, |n| n, |n| taken.push(n)).expect_err("it is told");
        assert_eq!((error.to_string().as_str(), taken), (why, vec![1]));
    }
}
