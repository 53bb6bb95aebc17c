#include "table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(const char *word)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *word; word++)
        h = (h ^ (unsigned char)*word) * 1099511628211u;
    return h;
}

static struct entry *find(struct entry *slots, size_t capacity, const char *word)
{
    size_t i = hash(word) & (capacity - 1);
    while (slots[i].word && strcmp(slots[i].word, word) != 0)
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static int grow(struct table *table)
{
    size_t capacity = table->capacity ? table->capacity * 2 : 64;
    struct entry *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].word)
            *find(slots, capacity, table->slots[i].word) = table->slots[i];
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
    return 0;
}

int table_add(struct table *table, const char *word)
{
    if (table->used * 4 >= table->capacity * 3 && grow(table) != 0)
        return -1;
    struct entry *entry = find(table->slots, table->capacity, word);
    if (!entry->word) {
        size_t size = strlen(word) + 1;
        if (!(entry->word = malloc(size)))
            return -1;
        memcpy(entry->word, word, size);
        table->used++;
    }
    entry->count++;
    return 0;
}

static int by_count(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->word, y->word);
}

struct entry *table_sorted(const struct table *table)
{
    struct entry *sorted = malloc((table->used + 1) * sizeof *sorted);
    if (!sorted)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].word)
            sorted[n++] = table->slots[i];
    qsort(sorted, n, sizeof *sorted, by_count);
    return sorted;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->capacity; i++)
        free(table->slots[i].word);
    free(table->slots);
}
