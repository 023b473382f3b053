/*
 * What a root file system made of cpio archives holds, as far as unpacking one more archive needs to know.
 */
#ifndef PROVIUM_TREE_H
#define PROVIUM_TREE_H

#include "loop/loop.h"

struct tree;

enum tree_type { TREE_NONE, TREE_FILE, TREE_DIR, TREE_LINK };

struct tree *tree_new(void);
void tree_free(struct tree *t);

/* Puts an archive member the way the kernel unpacks it: symbolic links of its parents are followed, what had
 * the name is replaced. target is a link's. Members without a name, or below a file, are ignored. */
void tree_put(struct tree *t, const char *name, enum tree_type type, const char *target);

/* What the path is, its last component not followed; and (may be NULL) its real path without a leading
 * slash, malloc'ed: NULL when a parent is a file. Parents that do not exist count as plain directories. */
enum tree_type tree_get(const struct tree *t, const char *path, char **real);

/* Reads the initrd at path into the tree, whatever it is compressed with and however many archives it has.
 * One that cannot be understood leaves what was understood: the kernel is the judge. Blocks: for helpers. */
int tree_read_initrd(struct tree *t, const char *path, struct err *e);

/* Maps a whole file for reading; *map is NULL when it is empty. Blocks: for helpers. */
int tree_map_file(const char *path, void **map, size_t *len, struct err *e);

/* The tree as bytes, and back. */
int tree_save(const struct tree *t, const char *path, struct err *e);
int tree_load(struct tree *t, const char *path, struct err *e);

#endif
