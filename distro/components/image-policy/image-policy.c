/*
 * The image verifier of nodes that were built with an image policy. containerd
 * executes it before each pull:
 *
 *   image-policy -name REFERENCE -digest DIGEST -stdin-media-type TYPE
 *
 * and pulls only when it exits with 0. What it prints is the reason, which
 * containerd puts into the error that the kubelet makes an event of.
 *
 * A policy is a text of lines:
 *
 *   # a comment
 *   require digest            only references that end in @ALGORITHM:HEX
 *   allow registry.example    all of this registry, whose port is part of its name
 *   allow docker.io/library/  all below this path
 *   allow quay.io/team/agent  this repository, whatever its tag or digest
 *
 * With an allow line, what no allow line matches is refused. The image's policy
 * and the node's both have to agree; one of them has to exist. Whatever cannot
 * be read or understood is refused.
 *
 * https://github.com/containerd/containerd/blob/v2.4.2/docs/image-verification.md
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef IMAGE_POLICY
#define IMAGE_POLICY "/lib/kios/image-policy"
#endif
#ifndef NODE_POLICY
#define NODE_POLICY "/etc/kios/image-policy"
#endif
#define POLICY_BYTES (64 * 1024)

enum verdict { PASSES, REFUSED, ABSENT };

static char policy[POLICY_BYTES + 1];

/* The length of a file's text in `policy`; -1 with errno. */
static ssize_t read_policy(const char *path)
{
	size_t length = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -1;
	for (;;) {
		ssize_t n = read(fd, policy + length, POLICY_BYTES + 1 - length);
		if (n < 0) {
			int saved = errno;
			close(fd);
			errno = saved;
			return -1;
		}
		length += (size_t)n;
		if (n == 0 || length > POLICY_BYTES)
			break;
	}
	close(fd);
	if (length > POLICY_BYTES) {
		errno = EFBIG;
		return -1;
	}
	policy[length] = '\0';
	return (ssize_t)length;
}

/* Whether an allow line's value covers a complete reference. */
static int covers(const char *value, const char *name)
{
	size_t length = strlen(value);
	char next;
	if (length == 0 || strncmp(value, name, length) != 0)
		return 0;
	next = name[length];
	if (value[length - 1] == '/')
		return next != '\0';
	/* A bare registry is not another one that only has a port more. */
	if (strchr(value, '/') == NULL)
		return next == '/';
	return next == '\0' || next == '/' || next == ':' || next == '@';
}

static int is_pinned(const char *name)
{
	const char *at = strchr(name, '@');
	return at != NULL && strchr(at, ':') != NULL;
}

static enum verdict judge(const char *path, const char *name)
{
	int allows = 0, allowed = 0, number = 0;
	char *line, *next;
	ssize_t length = read_policy(path);
	if (length < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return ABSENT;
		printf("the image policy %s cannot be read: %s\n", path, strerror(errno));
		return REFUSED;
	}
	if (strlen(policy) != (size_t)length) {
		printf("the image policy %s is no text\n", path);
		return REFUSED;
	}
	for (line = policy; line != NULL; line = next) {
		size_t end;
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		number++;
		line += strspn(line, " \t\r");
		for (end = strlen(line); end > 0 && strchr(" \t\r", line[end - 1]) != NULL; end--)
			line[end - 1] = '\0';
		if (*line == '\0' || *line == '#')
			continue;
		if (strcmp(line, "require digest") == 0) {
			if (!is_pinned(name)) {
				printf("it is not pinned by digest (NAME@sha256:...), which %s requires\n", path);
				return REFUSED;
			}
		} else if (strncmp(line, "allow ", 6) == 0 && strpbrk(line + 6, " \t") == NULL) {
			allows = 1;
			if (covers(line + 6, name))
				allowed = 1;
		} else {
			printf("line %d of the image policy %s is not understood\n", number, path);
			return REFUSED;
		}
	}
	if (allows && !allowed) {
		printf("it is not on the allow-list of %s\n", path);
		return REFUSED;
	}
	return PASSES;
}

int main(int argc, char **argv)
{
	const char *name = NULL;
	enum verdict of_image, of_node;
	int i;
	for (i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "-name") == 0)
			name = argv[i + 1];
	if (name == NULL || *name == '\0') {
		puts("containerd did not say which image");
		return 1;
	}
	of_image = judge(IMAGE_POLICY, name);
	if (of_image == REFUSED)
		return 1;
	of_node = judge(NODE_POLICY, name);
	if (of_node == REFUSED)
		return 1;
	if (of_image == ABSENT && of_node == ABSENT) {
		puts("there is no image policy: neither " IMAGE_POLICY " nor " NODE_POLICY);
		return 1;
	}
	puts("it keeps to the image policy");
	return 0;
}
