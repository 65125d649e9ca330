//! The ioctls of a userfaultfd, each one system call. What they write is preset with a sentinel.

use super::newer::{self, uffdio_move, uffdio_poison, uffdio_rwprotect, uffdio_set_mode};
use super::{Field, Range, Rc, SENTINEL, Uffd};
use nix::errno::Errno;
use userfaultfd_sys as sys;

/// What `UFFDIO_API` returned and wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The return value.
    pub rc: Rc,
    /// Features afterwards; the kernel zeroes them when it refuses.
    pub features: u64,
    /// Ioctls afterwards, as bits.
    pub ioctls: u64,
}

impl Uffd {
    /// `UFFDIO_API` with the wanted features; the offered features on success.
    pub fn api(&self, features: u64) -> Result<u64, Errno> {
        let mut arg = sys::uffdio_api { api: sys::UFFD_API, features, ioctls: 0 };
        self.ioctl(sys::UFFDIO_API.into(), &mut arg).0.map_or(Ok(arg.features), Err)
    }

    /// `UFFDIO_REGISTER`; the offered range ioctls on success.
    pub fn register(&self, range: Range, mode: u64) -> Result<u64, Errno> {
        let mut arg = sys::uffdio_register { range: range.to_abi(), mode, ioctls: 0 };
        self.ioctl(sys::UFFDIO_REGISTER.into(), &mut arg).0.map_or(Ok(arg.ioctls), Err)
    }

    /// `UFFDIO_UNREGISTER`.
    pub fn unregister(&self, range: Range) -> Rc {
        self.ioctl(sys::UFFDIO_UNREGISTER.into(), &mut range.to_abi())
    }

    /// `UFFDIO_WAKE`.
    pub fn wake(&self, range: Range) -> Rc {
        self.ioctl(sys::UFFDIO_WAKE.into(), &mut range.to_abi())
    }

    /// `UFFDIO_COPY` of `dst.len` bytes from `src`; also its result field.
    pub fn copy(&self, dst: Range, src: usize, mode: u64) -> (Rc, Field) {
        let mut arg = sys::uffdio_copy {
            dst: dst.start as u64,
            src: src as u64,
            len: dst.len as u64,
            mode,
            copy: SENTINEL,
        };
        let rc = self.ioctl(sys::UFFDIO_COPY.into(), &mut arg);
        (rc, Field(arg.copy))
    }

    /// `UFFDIO_ZEROPAGE`; also its result field.
    pub fn zeropage(&self, range: Range, mode: u64) -> (Rc, Field) {
        let mut arg = sys::uffdio_zeropage { range: range.to_abi(), mode, zeropage: SENTINEL };
        let rc = self.ioctl(sys::UFFDIO_ZEROPAGE.into(), &mut arg);
        (rc, Field(arg.zeropage))
    }

    /// `UFFDIO_API` for any version of the API, with everything that it wrote.
    pub fn handshake(&self, api: u64, features: u64) -> Api {
        let mut arg = sys::uffdio_api { api, features, ioctls: SENTINEL.cast_unsigned() };
        let rc = self.ioctl(sys::UFFDIO_API.into(), &mut arg);
        Api { rc, features: arg.features, ioctls: arg.ioctls }
    }

    /// `UFFDIO_WRITEPROTECT`, which has no result field.
    pub fn writeprotect(&self, range: Range, mode: u64) -> Rc {
        let mut arg = sys::uffdio_writeprotect { range: range.to_abi(), mode };
        self.ioctl(sys::UFFDIO_WRITEPROTECT.into(), &mut arg)
    }

    /// `UFFDIO_CONTINUE`; also its result field.
    pub fn resume(&self, range: Range, mode: u64) -> (Rc, Field) {
        let mut arg = sys::uffdio_continue { range: range.to_abi(), mode, mapped: SENTINEL };
        let rc = self.ioctl(sys::UFFDIO_CONTINUE.into(), &mut arg);
        (rc, Field(arg.mapped))
    }

    /// `UFFDIO_POISON`; also its result field.
    pub fn poison(&self, range: Range, mode: u64) -> (Rc, Field) {
        let mut arg = uffdio_poison { range: range.to_abi(), mode, updated: SENTINEL };
        let rc = self.ioctl(newer::UFFDIO_POISON, &mut arg);
        (rc, Field(arg.updated))
    }

    /// `UFFDIO_MOVE` of `dst.len` bytes from `src`; also its result field.
    pub fn relocate(&self, dst: Range, src: usize, mode: u64) -> (Rc, Field) {
        let (start, len) = (dst.start as u64, dst.len as u64);
        let mut arg = uffdio_move { dst: start, src: src as u64, len, mode, moved: SENTINEL };
        let rc = self.ioctl(newer::UFFDIO_MOVE, &mut arg);
        (rc, Field(arg.moved))
    }

    /// `UFFDIO_RWPROTECT`, which has no result field.
    pub fn rwprotect(&self, range: Range, mode: u64) -> Rc {
        let mut arg = uffdio_rwprotect { range: range.to_abi(), mode };
        self.ioctl(newer::UFFDIO_RWPROTECT, &mut arg)
    }

    /// `UFFDIO_SET_MODE`: features to switch on and off.
    pub fn set_mode(&self, enable: u64, disable: u64) -> Rc {
        self.ioctl(newer::UFFDIO_SET_MODE, &mut uffdio_set_mode { enable, disable })
    }
}
