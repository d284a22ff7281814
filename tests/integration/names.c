/* Stands between a program and the system's resolver: says which addresses `api.test` has, which are
 * the lines of NAMES_FILE, takes its time, and adds a byte to NAMES_LOG for each question. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static struct addrinfo *address(const char *text)
{
    /* As glibc lays it out, so that its freeaddrinfo frees it. */
    struct addrinfo *info = calloc(1, sizeof *info + sizeof(struct sockaddr_storage));
    info->ai_addr = (struct sockaddr *)(info + 1);
    info->ai_socktype = SOCK_STREAM;
    if (strchr(text, ':')) {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)info->ai_addr;
        to->sin6_family = info->ai_family = AF_INET6;
        info->ai_addrlen = sizeof *to;
        inet_pton(AF_INET6, text, &to->sin6_addr);
    } else {
        struct sockaddr_in *to = (struct sockaddr_in *)info->ai_addr;
        to->sin_family = info->ai_family = AF_INET;
        info->ai_addrlen = sizeof *to;
        inet_pton(AF_INET, text, &to->sin_addr);
    }
    return info;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    if (!node || strcmp(node, "api.test") != 0) {
        resolver next = (resolver)dlsym(RTLD_NEXT, "getaddrinfo");
        return next(node, service, hints, found);
    }
    int log = open(getenv("NAMES_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(log, "x", 1) != 1)
        abort();
    close(log);
    usleep(300 * 1000);
    FILE *names = fopen(getenv("NAMES_FILE"), "r");
    char line[64];
    struct addrinfo **end = found;
    *found = NULL;
    while (names && fgets(line, sizeof line, names)) {
        line[strcspn(line, "\n")] = '\0';
        *end = address(line);
        end = &(*end)->ai_next;
    }
    if (names)
        fclose(names);
    return *found ? 0 : EAI_NONAME;
}
