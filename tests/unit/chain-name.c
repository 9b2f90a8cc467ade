/* SPDX-License-Identifier: MIT */
/* Backing strings: read, made, taken over. */
#include "chain/name.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void reads(const char *string, const char *overlay, enum name_style style,
		  const char *path, const char *format)
{
	struct name n;

	assert(name_parse(string, overlay, &n) == 0);
	assert(n.style == style);
	assert(path ? n.path && strcmp(n.path, path) == 0 : !n.path);
	assert(format ? n.format && strcmp(n.format, format) == 0 : !n.format);
	name_release(&n);
}

static void refused(const char *string)
{
	struct name n;

	assert(name_parse(string, "o", &n) == -ENOTSUP);
	assert(!n.path && !n.format);
}

static void parse(void)
{
	reads("/a/b", "x/y", NAME_ABSOLUTE, "/a/b", NULL);
	reads("b", "y", NAME_RELATIVE, "b", NULL);
	reads("b", "x/y", NAME_RELATIVE, "x/b", NULL);
	reads("../b", "/x/y", NAME_RELATIVE, "/x/../b", NULL);
	reads("./a:b", "x/y", NAME_RELATIVE, "x/./a:b", NULL);
	reads("d/a:b", "x/y", NAME_RELATIVE, "x/d/a:b", NULL);
	/* the overlay's own name may have a colon */
	reads("b", "x:z/y", NAME_RELATIVE, "x:z/b", NULL);
	reads("file:b", "x/y", NAME_FILE, "b", NULL);
	reads("file:/b", "x/y", NAME_FILE, "/b", NULL);
	reads("a:b", "x/y", NAME_PROTOCOL, NULL, NULL);
	reads("nbd://h/e", "x/y", NAME_PROTOCOL, NULL, NULL);
	reads("nbd+unix:///e?socket=s", "x/y", NAME_PROTOCOL, NULL, NULL);
	reads("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":"
	      "\"b\"}}",
	      "x/y", NAME_JSON, "b", "qcow2");
	reads("json:{\"file.filename\":\"/b\"}", "x/y", NAME_JSON, "/b", NULL);
	reads("json:{\"file.driver\":\"file\",\"file\":{\"filename\":\"/b\"}}", "y",
	      NAME_JSON, "/b", NULL);
	reads("json:{\"driver\":\"file\",\"filename\":\"a:b\"}", "y", NAME_JSON, "a:b",
	      "raw");
	/* QEMU's other quotes */
	reads("json:{'driver':'raw','file.filename':'it\\'s \"b\"'}", "y", NAME_JSON,
	      "it's \"b\"", "raw");
	refused("json:");
	refused("json:[]");
	refused("json:{\"driver\":\"qcow2\"}");
	refused("json:{\"file\":\"node0\"}");
	refused("json:{'filename':'b'}");
	refused("json:{\"driver\":\"nbd\",\"host\":\"h\"}");
	refused("json:{\"file\":{\"driver\":\"nbd\",\"path\":\"p\"}}");
	refused("json:{\"driver\":\"raw\",\"offset\":512,\"file.filename\":\"b\"}");
	refused("json:{\"driver\":\"qcow2\",\"backing\":null,\"file.filename\":\"b\"}");
	refused("json:{'file.filename':'b");
}

static void makes(const char *overlay, const char *target, bool absolute,
		  const char *wanted)
{
	char *made = NULL;

	assert(name_make(overlay, target, absolute, &made) == 0);
	if (strcmp(made, wanted) != 0)
		fprintf(stderr, "%s, wanted %s\n", made, wanted);
	assert(strcmp(made, wanted) == 0);
	free(made);
}

static void make(const char *root)
{
	char text[4096], *made = NULL, name[1100];

	makes("o", "b", false, "b");
	makes("o", "d/e/b", false, "d/e/b");
	makes("d/o", "b", false, "../b");
	makes("d/e/o", "f/b", false, "../../f/b");
	makes("d/e/o", "d/b", false, "../b");
	makes("d/o", "de/b", false, "../de/b");
	makes("o", "./a:b", false, "./a:b");
	makes("d/o", "a:b", false, "../a:b");
	makes("o", "-b", false, "./-b");
	makes("o", "link/b", false, "d/e/b");
	makes("link/o", "d/e/b", false, "b");
	snprintf(text, sizeof(text), "%s/d/b", root);
	makes("x/y/z/does/not/matter", "d/b", true, text);
	makes("o", "link/../b", true, text);
	makes("/o", "/b", false, "b");
	makes("/o", "/b", true, "/b");
	makes("o", "/b", true, "/b");
	assert(name_make("o", "missing/b", false, &made) == -ENOENT);
	assert(name_make("o", "d/", false, &made) == -EINVAL);
	memset(name, 'n', sizeof(name));
	name[1024] = '\0';
	assert(name_make("o", name, false, &made) == -ENAMETOOLONG);
	name[1023] = '\0';
	makes("o", name, false, name);
	assert(name_make("o", name, true, &made) == -ENAMETOOLONG);
}

static void takes(const char *overlay, const char *below, const char *string,
		  const char *wanted)
{
	char *made = NULL;

	assert(name_take_over(overlay, below, string, &made) == 0);
	if (strcmp(made, wanted) != 0)
		fprintf(stderr, "%s, wanted %s\n", made, wanted);
	assert(strcmp(made, wanted) == 0);
	free(made);
}

static void take_over(const char *root)
{
	char text[4096], *made = NULL;

	takes("o", "c", "/x/b", "/x/b");
	takes("o", "c", "b", "b");
	/* the same folder: not a byte changes */
	takes("o", "c", "d/../d/b", "d/../d/b");
	takes("o", "d/c", "b", "d/b");
	takes("d/o", "c", "b", "../b");
	takes("d/o", "f/c", "../d/e/b", "e/b");
	takes("d/o", "c", "file:/x/b", "file:/x/b");
	snprintf(text, sizeof(text), "%s/b", root);
	takes("d/o", "f/c", "file:b", text);
	takes("d/o", "f/c", "json:{\"file.filename\":\"b\"}", text);
	takes("d/o", "f/c", "json:{\"file.filename\":\"/b\"}",
	      "json:{\"file.filename\":\"/b\"}");
	assert(name_take_over("o", "c", "json:{}", &made) == -ENOTSUP);
}

int main(void)
{
	char folder[] = "/tmp/chain-name-XXXXXX", command[64];
	char *root;

	parse();
	assert(mkdtemp(folder) && chdir(folder) == 0);
	root = realpath(".", NULL);
	assert(root && mkdir("d", 0700) == 0 && mkdir("d/e", 0700) == 0);
	assert(mkdir("f", 0700) == 0 && mkdir("de", 0700) == 0);
	assert(symlink("d/e", "link") == 0);
	makes("o", "b", false, "b");
	mkdir("x", 0700);
	make(root);
	take_over(root);
	free(root);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? 0 : 1;
}
