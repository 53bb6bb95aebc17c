/* tally FILE: the ten most frequent words of a text; `-` reads standard input. */
#include "table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_words(FILE *in, struct table *table)
{
    char word[128];
    size_t length = 0;
    for (int c = fgetc(in);; c = fgetc(in)) {
        if (c != EOF && isalpha(c)) {
            if (length < sizeof word - 1)
                word[length++] = (char)tolower(c);
            continue;
        }
        if (length > 0) {
            word[length] = '\0';
            length = 0;
            if (table_add(table, word) != 0)
                return -1;
        }
        if (c == EOF)
            return 0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: tally FILE\n");
        return 2;
    }
    FILE *in = strcmp(argv[1], "-") == 0 ? stdin : fopen(argv[1], "r");
    if (!in) {
        fprintf(stderr, "tally: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    struct table table = {0};
    struct entry *sorted = NULL;
    if (read_words(in, &table) != 0 || !(sorted = table_sorted(&table))) {
        fprintf(stderr, "tally: out of memory\n");
        return 1;
    }
    for (size_t i = 0; i < table.used && i < 10; i++)
        printf("%7zu %s\n", sorted[i].count, sorted[i].word);
    free(sorted);
    table_free(&table);
    return 0;
}
