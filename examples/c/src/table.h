#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

/* How often each word was seen. Open addressing; grows at three quarters full. */
struct entry {
    char *word;
    size_t count;
};

struct table {
    struct entry *slots;
    size_t capacity, used;
};

/* Adds one to the count of `word`. Returns 0, or -1 when memory is out. */
int table_add(struct table *table, const char *word);

/* The entries, most frequent first, ties by word. The caller frees the array, not the words. */
struct entry *table_sorted(const struct table *table);

void table_free(struct table *table);

#endif
