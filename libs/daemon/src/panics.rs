//! What a panic ends: the whole process, unless it happens in work whose owner said that it stands alone.
//!
//! An invariant half done is worse than a restart, so [`end_the_process`] makes any panic an abort, on whichever thread
//! and in whichever task: those of libraries, of `spawn_blocking` and of threads that nobody joins too. Three are let be:
//!
//! - work in [`contained`] or [`caught`], of which a panic comes back as an error;
//! - a thread whose name begins with [`JOINED`]: whoever joins it takes its panic as a result;
//! - panics of programs that never called [`end_the_process`]: tests.
//!
//! Contained work that holds a [`Mutex`] of this module ends the process all the same: what the lock guards may be half
//! changed. So after a contained panic each value shared by such a lock is as its last holder left it on purpose. What is
//! swapped whole (`ArcSwap`, channels, atomics) and what is only read under a lock cannot be half done; what is held
//! across an await must be given back when it is dropped anyway, as clients go away at any time.

use parking_lot::{MutexGuard, const_mutex};
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// How the name of a thread begins whose panic is taken by whoever joins it.
pub const JOINED: &str = "joined: ";

thread_local! {
    /// How many pieces of contained work are on this thread's stack.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
    /// How many locks this thread holds whose values may be half changed.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic of contained work happened.
    static TRACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on any panic that is not contained ends the process, after it was told.
pub fn end_the_process() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        if !is_taken() {
            std::process::abort();
        }
        TRACE.set(Some(trace(info)));
    }));
}

/// Whether somebody waits for a panic of this thread, and nothing is half done.
fn is_taken() -> bool {
    let joined = std::thread::current().name().is_some_and(|name| name.starts_with(JOINED));
    (joined || CONTAINED.get() > 0) && HELD.get() == 0
}

fn trace(info: &PanicHookInfo<'_>) -> String {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    format!("{at}\n{}", Backtrace::force_capture())
}

/// That contained work panicked.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {message}")]
pub struct Panicked {
    /// What it said.
    pub message: String,
    /// Where, if the process's hook saw it.
    pub trace: String,
}

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Self { message, trace: TRACE.take().unwrap_or_default() }
    }
}

/// Counts in a cell for as long as it lives, on this thread.
struct Counted(&'static std::thread::LocalKey<Cell<usize>>, PhantomData<*const ()>);

impl Counted {
    fn new(cell: &'static std::thread::LocalKey<Cell<usize>>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell, PhantomData)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Does work that may panic without harm to others.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _contained = Counted::new(&CONTAINED);
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::of(payload.as_ref()))
}

/// Does work that may panic without harm to others. Tasks that it starts are not part of it.
///
/// # Errors
/// It panicked; it is not polled again.
pub fn contained<F: Future>(work: F) -> Contained<F> {
    Contained(Box::pin(work))
}

/// See [`contained`]. The work has a place of its own: async functions around it would each keep room for it twice, and a
/// server's idle connections are many.
#[derive(Debug)]
pub struct Contained<F>(Pin<Box<F>>);

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match caught(|| self.0.as_mut().poll(context)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// A lock around what several requests or tasks share: a panic of its holder ends the process.
pub struct Mutex<T>(parking_lot::Mutex<T>);

/// Access to what a [`Mutex`] guards.
pub struct Guard<'a, T> {
    value: MutexGuard<'a, T>,
    _held: Counted,
}

impl<T> Mutex<T> {
    /// Around a value.
    pub const fn new(value: T) -> Self {
        Self(const_mutex(value))
    }

    /// Waits for its turn.
    pub fn lock(&self) -> Guard<'_, T> {
        Guard { value: self.0.lock(), _held: Counted::new(&HELD) }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tasks;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// Names what the test program's own child is to do.
    const DO: &str = "CORACLE_TEST_PANICS";
    const SIGABRT: i32 = 6;

    fn fail() {
        panic!("as this test wants");
    }

    #[tokio::test]
    async fn contained_work_gives_its_result_or_its_panic() {
        assert_eq!(contained(async { 1 }).await.expect("done"), 1);
        let failed = contained(async {
            tokio::task::yield_now().await;
            fail();
        });
        assert_eq!(failed.await.expect_err("panics").message, "as this test wants");
        assert_eq!(caught(|| panic!("{} of {}", 1, 2)).map(|()| 0).expect_err("panics").message, "1 of 2");
        assert_eq!((CONTAINED.get(), HELD.get()), (0, 0));
    }

    /// Runs only as a child of the next test.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn panics_in_a_process_of_its_own() {
        let Ok(what) = std::env::var(DO) else { return };
        end_the_process();
        let shared = Mutex::new(1);
        let tasks = Tasks::new();
        match what.as_str() {
            "contained" => {
                let panicked = contained(async { fail() }).await.expect_err("panics");
                assert!(panicked.trace.contains("panics.rs"), "{panicked:?}");
            }
            "contained, after a lock" => {
                let work = async {
                    *shared.lock() += 1;
                    fail();
                };
                drop(contained(work).await);
            }
            "contained, under a lock" => {
                let work = async {
                    let mut held = shared.lock();
                    fail();
                    *held += 1;
                };
                drop(contained(work).await);
            }
            "joined" => {
                let named = std::thread::Builder::new().name(format!("{JOINED}here"));
                assert!(named.spawn(fail).expect("a thread").join().is_err());
            }
            "thread" => drop(std::thread::spawn(fail).join()),
            "blocking" => drop(tokio::task::spawn_blocking(fail).await),
            "task" => {
                tasks.run("fails", async { fail() });
                tasks.first_death().await;
            }
            "task of contained work" => {
                drop(contained(async { tasks.run("fails", async { fail() }) }).await);
                tasks.first_death().await;
            }
            other => panic!("{other} is unknown"),
        }
    }

    #[test]
    fn a_panic_ends_the_process_but_where_somebody_takes_it() {
        let run = |what: &str| -> ExitStatus {
            let program = std::env::current_exe().expect("this program");
            let name = "panics::tests::panics_in_a_process_of_its_own";
            Command::new(program).args(["--exact", name]).env(DO, what).output().expect("runs").status
        };
        let ends = [
            ("contained", false),
            ("contained, after a lock", false),
            ("contained, under a lock", true),
            ("joined", false),
            ("thread", true),
            ("blocking", true),
            ("task", true),
            ("task of contained work", true),
        ];
        for (what, ends) in ends {
            let status = run(what);
            let told = (status.success(), status.signal() == Some(SIGABRT));
            assert_eq!(told, (!ends, ends), "{what}: {status}");
        }
    }
}
