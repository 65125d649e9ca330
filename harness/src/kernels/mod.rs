//! Which kernels can be had, and how one becomes a boot image with an identity.
//!
//! `archive` asks Debian's archive through apt and writes what it finds into the [`Lock`];
//! [`select`] picks kernels from the lock; the [`Cache`] downloads, checks and unpacks one, and
//! hands out an [`Image`]. [`user_image`] does the same for files of the user's own.
//! Booting an image does not belong here.

mod apt;
mod archive;
mod cache;
mod cpio;
mod debian;
pub(crate) mod foreign;
mod header;
mod identity;
mod index;
mod lighten;
mod lock;
mod modules;
mod packed;
mod rpm;
mod select;
mod unpack;
mod user;

pub use apt::{Apt, Fetch, FetchFailure};
pub use archive::{Changes, refresh};
pub use cache::{Cache, FetchError};
pub use identity::{Identity, Image};
pub use lock::{Archive, Lock, LockError, Locked, PackageFile};
pub use modules::{Module, read as read_modules};
pub use select::{SelectError, Slot, select};
pub use user::{UserError, UserKernel, user_image};

#[cfg(test)]
mod testing;
