/* Answers lines of "release, machine or -, case, fact" between tabs, a line each. */
#include "uffd_conform.h"
#include <stdio.h>

static const char *or_dash(const char *text)
{
    return text != NULL ? text : "-";
}

int main(void)
{
    static const char *const sure[] = {"unknown", "between series", "within series", "exact"};
    char line[1024];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *field[4], *rest = line;
        struct uffd_answer answer;
        int i, known;

        line[strcspn(line, "\n")] = '\0';
        for (i = 0; i < 4; i++) {
            char *tab = strchr(rest, '\t');
            field[i] = rest;
            if (tab == NULL && i < 3)
                return 1;
            if (tab != NULL) {
                *tab = '\0';
                rest = tab + 1;
            }
        }
        if (strcmp(field[1], "-") == 0)
            known = uffd_lookup(field[0], field[2], field[3], &answer);
        else
            known = uffd_lookup_on(field[0], field[1], field[2], field[3], &answer);
        if (known != (answer.value != NULL))
            return 2;
        printf("%s\t%s\t%s\t%s\t%s\n", or_dash(answer.value), sure[answer.certainty],
               or_dash(answer.why), or_dash(answer.first), or_dash(answer.last));
    }
    return 0;
}
