/* The least that serves faults from a thread: read(2), UFFDIO_COPY, again. Prints what each of N faults has
   cost, in ticks of the time-stamp counter, a line each. Both threads run on the CPU given. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 32 };

static int uffd;
static char *block, *source;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t stamp(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static void *serve(void *nothing)
{
    struct uffd_msg message;
    while (read(uffd, &message, sizeof message) == sizeof message) {
        uint64_t page = message.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
        struct uffdio_copy copy = { .dst = page, .src = (uint64_t)source, .len = PAGE };
        if (ioctl(uffd, UFFDIO_COPY, &copy))
            fail("UFFDIO_COPY");
    }
    return nothing;
}

static int open_uffd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
#ifdef USERFAULTFD_IOC_NEW
    if (fd < 0) {
        int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        if (device >= 0)
            fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    }
#endif
    if (fd < 0)
        fail("userfaultfd");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long rounds = atol(argv[1]);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(atoi(argv[2]), &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus))
        fail("sched_setaffinity");
    int flags = MAP_PRIVATE | MAP_ANONYMOUS, access = PROT_READ | PROT_WRITE;
    block = mmap(NULL, PAGES * PAGE, access, flags, -1, 0);
    source = mmap(NULL, PAGE, access, flags, -1, 0);
    if (block == MAP_FAILED || source == MAP_FAILED)
        fail("mmap");
    *source = 1;
    uffd = open_uffd();
    struct uffdio_api api = { .api = UFFD_API };
    struct uffdio_register reg = { .range = { (uint64_t)block, PAGES * PAGE },
                                   .mode = UFFDIO_REGISTER_MODE_MISSING };
    if (ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
        fail("registering");
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, NULL))
        fail("pthread_create");
    uint64_t *ticks = calloc((size_t)rounds * PAGES, sizeof *ticks);
    for (long n = 0; n < rounds * PAGES; n++) {
        volatile char *page = block + n % PAGES * PAGE;
        uint64_t start = stamp();
        *page = 1;
        ticks[n] = stamp() - start;
        if (n % PAGES == PAGES - 1 && madvise(block, PAGES * PAGE, MADV_DONTNEED))
            fail("madvise");
    }
    for (long n = PAGES; n < rounds * PAGES; n++)
        printf("%llu\n", (unsigned long long)ticks[n]);
    return 0;
}
