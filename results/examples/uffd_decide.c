/* Decides by uname -r. Make the header with `uffd-conform export --format c-header`. */
#include "uffd_conform.h"
#include <stdio.h>

static void decide(const char *release, const char *what, const char *case_id, const char *fact)
{
    static const char *const sure[] = {"unknown", "between series", "within series", "exact"};
    struct uffd_answer answer;

    if (uffd_lookup(release, case_id, fact, &answer))
        printf("%s: %s (%s)\n", what, answer.value, sure[answer.certainty]);
    else
        printf("%s: unknown (%s)\n", what, answer.why);
}

int main(int argc, char **argv)
{
    const char *release = argc > 1 ? argv[1] : "";

    /* A thread waits in a page; other memory is mapped over that page; UNREGISTER of the block. */
    decide(release, "waiter after UNREGISTER",
           "unregister/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]",
           "waiter");
    /* COPY while an event of the userfaultfd is unread, which fails with EAGAIN. */
    decide(release, "field on EAGAIN", "copy/event-unread[backing=anon]", "field");
    return 0;
}
