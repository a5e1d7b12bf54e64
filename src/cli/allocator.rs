//! What the allocator of glibc is told at start.

/// From this size on a block is mapped, and given back when it is freed. That is less than the 16 MiB and 4 KiB into which a thread
/// of fuser reads requests, and more than anything that comes and goes often.
const MAPPED_FROM_BYTES: libc::c_int = 16 << 20;
/// So much at the end of a heap may be free without being given back: twice that, as glibc would have it of itself.
const KEPT_FREE_BYTES: libc::c_int = 2 * MAPPED_FROM_BYTES;

/// Has large blocks mapped, always. glibc raises its threshold to what it sees freed: once one mount had ended its handshake, buffers
/// of FUSE threads came from heaps, where calloc(3) writes zeros over all 16 MiB. With 200 mounts of four threads that was
/// 8 GiB resident, and 6 of the 8 s in which the next process went on with them (mallopt(3), `sysmalloc` of malloc/malloc.c).
pub(super) fn settle() {
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES), (libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES)] {
        // SAFETY: it sets a number, before there are other threads. A value that it refuses changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}
