/* SPDX-License-Identifier: MIT */
#include "info-dot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "common.h"

void info_dot_begin(void)
{
	puts("strict digraph chain {");
	puts("\trankdir=BT;");
	puts("\tnode [shape=box, style=rounded, fontname=\"sans-serif\"];");
}

void info_dot_end(void)
{
	puts("}");
}

/* In a quoted string of DOT, \ and " are written with a \ before them. */
static void quote(const char *text)
{
	CLEANUP_FREE char *plain = common_text(text);

	for (const char *p = plain ? plain : "?"; *p; p++) {
		if (*p == '"' || *p == '\\')
			putchar('\\');
		putchar(*p);
	}
}

/* By inode, so that one image is one box in all chains; what did not open, by name. */
static void print_id(const struct info_layer *l)
{
	const struct image *img = l->link->image;
	const struct foreign *f = l->link->foreign;

	if (img || f) {
		printf("\"%" PRIx64 "-%" PRIx64 "\"", (uint64_t)(img ? img->dev : f->dev),
		       (uint64_t)(img ? img->ino : f->ino));
		return;
	}
	printf("\"! ");
	quote(l->link->path);
	putchar('"');
}

static void print_box(const struct info_layer *l)
{
	const char *broken = info_broken(l), *format = info_format(l);
	char text[SIZE_TEXT];
	uint64_t bytes;

	putchar('\t');
	print_id(l);
	printf(" [label=\"");
	quote(l->link->path);
	if (format) {
		printf("\\n");
		quote(format);
	}
	if ((l->link->image || l->link->foreign) && info_size(l, &bytes))
		printf(", %s", size_format(bytes, text));
	if (l->has_disk)
		printf(", %s on disk", size_format(l->disk + l->data_disk, text));
	if (info_encryption(l))
		printf(", encrypted");
	if (broken)
		printf("\\n%s", broken);
	printf("\"%s", broken ? ", style=\"rounded,dashed\", color=red" : "");
	printf("%s];\n", l->in_use ? ", penwidth=2" : "");
}

int info_dot(const struct info *i)
{
	for (size_t k = 0; k < i->count; k++) {
		print_box(&i->layers[k]);
		if (k == 0)
			continue;
		putchar('\t');
		print_id(&i->layers[k - 1]);
		printf(" -> ");
		print_id(&i->layers[k]);
		puts(i->layers[k].link->probed ? " [style=dotted];" : ";");
	}
	return ferror(stdout) ? fail_errno(errno ? errno : EIO, "cannot write") : 0;
}
