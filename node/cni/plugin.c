/* signalbox-cni: passes a CNI request to the node agent's socket, and its answer back.
 *
 * One static executable that needs nothing of the host it is copied to and starts in a fraction of a millisecond: a
 * runtime runs it once for each pod that comes or goes. It decides nothing itself. plugin.py is the same for where there
 * was no C compiler.
 *
 * stdin, CNI_* ──> checked, one line of JSON ──> agent ──> "STATUS LENGTH\n" and the answer ──> stdout, exit status
 *
 * Everything is bounded: the configuration and the answer in bytes, the whole in time. Whatever is wrong is answered
 * with the specification's error object, so that the runtime can log it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/signalbox/node.sock"
/* Bytes of a configuration, of an answer, and of a variable: the agent takes lines of 4 MiB. */
#define CONFIG_LIMIT (1u << 20)
#define ANSWER_LIMIT (1u << 20)
#define VARIABLE_LIMIT 65536u
/* Milliseconds: to be told what to do, and for all of it. The agent bounds its own waits below that. */
#ifndef INPUT_WAIT
#define INPUT_WAIT 10000
#endif
#ifndef WHOLE_WAIT
#define WHOLE_WAIT 60000
#endif
/* Objects in objects: a configuration has three or four. */
#define DEPTH_LIMIT 64
#define NO_TIME (-2)

enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, DECODE = 6, INVALID_CONFIG = 7, TRY_LATER = 11, NOT_AVAILABLE = 50 };

static const char *const variables[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS",
                                        "CNI_PATH"};
static char config[CONFIG_LIMIT + 1], answer[ANSWER_LIMIT + 64], message[1024];
/* The specification's version that errors are told in: the configuration's, once it is known. */
static char version[33] = "1.1.0";

/* Time and output ------------------------------------------------------------------------------------------------- */

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000L + time.tv_nsec / 1000000L;
}

/* Wait until a descriptor is ready; false where the time is over. */
static bool ready(int descriptor, short events, long deadline) {
    for (;;) {
        long left = deadline - now();
        struct pollfd each = {.fd = descriptor, .events = events};
        int found = left > 0 ? poll(&each, 1, (int)left) : 0;
        if (found > 0)
            return true;
        if (found == 0 || errno != EINTR)
            return false;
    }
}

static bool write_all(const char *data, size_t size) {
    while (size > 0) {
        ssize_t done = write(STDOUT_FILENO, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        data += done;
        size -= (size_t)done;
    }
    return true;
}

/* A string as JSON has it. What is not ASCII stays as it is: a reader knows UTF-8. */
static void put_string(FILE *out, const char *text) {
    putc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char each = (unsigned char)*text;
        if (each == '"' || each == '\\')
            fprintf(out, "\\%c", each);
        else if (each < 0x20 || each == 0x7f)
            fprintf(out, "\\u%04x", each);
        else
            putc(each, out);
    }
    putc('"', out);
}

/* Answer with an error object; the exit status. */
static int fail(int code, const char *text) {
    char *data = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&data, &size);
    if (out == NULL)
        return 1;
    fprintf(out, "{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": ", version, code);
    put_string(out, text);
    putc('}', out);
    if (fclose(out) == 0)
        write_all(data, size);
    free(data);
    return 1;
}

/* JSON: is it well-formed (RFC 8259), and where are the two strings that concern us? --------------------------------- */

struct json {
    const char *at, *end;
    int depth;
};

struct text {
    const char *start;
    size_t size;
    bool there, string;
};

static struct text found_version, found_socket;

static void skip_space(struct json *json) {
    while (json->at < json->end && strchr(" \t\r\n", *json->at) != NULL && *json->at != '\0')
        json->at++;
}

static bool take(struct json *json, char wanted) {
    skip_space(json);
    if (json->at >= json->end || *json->at != wanted)
        return false;
    json->at++;
    return true;
}

static bool is_digit(const struct json *json) {
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

static bool digits(struct json *json) {
    if (!is_digit(json))
        return false;
    while (is_digit(json))
        json->at++;
    return true;
}

static bool is_hex(char each) {
    return (each >= '0' && each <= '9') || ((each | 0x20) >= 'a' && (each | 0x20) <= 'f');
}

/* A string; `text` is what is between its quotes, escapes and all. */
static bool string(struct json *json, struct text *text) {
    if (!take(json, '"'))
        return false;
    text->start = json->at;
    while (json->at < json->end) {
        unsigned char each = (unsigned char)*json->at++;
        if (each == '"') {
            text->size = (size_t)(json->at - 1 - text->start);
            return true;
        }
        if (each < 0x20)
            return false;
        if (each == '\\') {
            if (json->at >= json->end)
                return false;
            char escaped = *json->at++;
            if (escaped == 'u') {
                for (int count = 0; count < 4; count++)
                    if (json->at >= json->end || !is_hex(*json->at++))
                        return false;
            } else if (escaped == '\0' || strchr("\"\\/bfnrt", escaped) == NULL)
                return false;
        }
    }
    return false;
}

static bool number(struct json *json) {
    if (json->at < json->end && *json->at == '-')
        json->at++;
    if (json->at < json->end && *json->at == '0')
        json->at++;
    else if (!digits(json))
        return false;
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (!digits(json))
            return false;
    }
    if (json->at < json->end && (*json->at | 0x20) == 'e') {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-'))
            json->at++;
        if (!digits(json))
            return false;
    }
    return true;
}

static bool word(struct json *json, const char *wanted) {
    size_t size = strlen(wanted);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, wanted, size) != 0)
        return false;
    json->at += size;
    return true;
}

static bool value(struct json *json);

static bool is_named(const struct text *key, const char *name) {
    return key->size == strlen(name) && memcmp(key->start, name, key->size) == 0;
}

/* A member of an object. Of several with one name the last counts, as for the agent. */
static bool member(struct json *json) {
    struct text key = {0}, *wanted = NULL;
    if (!string(json, &key) || !take(json, ':'))
        return false;
    if (json->depth == 1)
        wanted = is_named(&key, "cniVersion") ? &found_version : is_named(&key, "socket") ? &found_socket : NULL;
    skip_space(json);
    const char *start = json->at;
    if (!value(json))
        return false;
    if (wanted != NULL) {
        bool quoted = *start == '"';
        *wanted = (struct text){.start = start + quoted,
                                .size = (size_t)(json->at - start) - (quoted ? 2 : 0),
                                .there = true,
                                .string = quoted};
    }
    return true;
}

static bool several(struct json *json, char last, bool (*each)(struct json *)) {
    if (++json->depth > DEPTH_LIMIT)
        return false;
    json->at++;
    if (!take(json, last)) {
        do {
            if (!each(json))
                return false;
        } while (take(json, ','));
        if (!take(json, last))
            return false;
    }
    json->depth--;
    return true;
}

static bool value(struct json *json) {
    struct text ignored;
    skip_space(json);
    if (json->at >= json->end)
        return false;
    switch (*json->at) {
    case '{':
        return several(json, '}', member);
    case '[':
        return several(json, ']', value);
    case '"':
        return string(json, &ignored);
    case 't':
        return word(json, "true");
    case 'f':
        return word(json, "false");
    case 'n':
        return word(json, "null");
    default:
        return number(json);
    }
}

/* Where a text stops being one JSON object; NULL where it is one. */
static const char *not_an_object(const char *text, size_t size) {
    struct json json = {.at = text, .end = text + size};
    skip_space(&json);
    if (json.at >= json.end || *json.at != '{' || !value(&json))
        return json.at;
    skip_space(&json);
    return json.at == json.end ? NULL : json.at;
}

/* What comes in ------------------------------------------------------------------------------------------------------ */

/* All of standard input; its size, -1 where it can't be read or is too much, NO_TIME where it doesn't end. */
static ssize_t read_config(long deadline) {
    size_t size = 0;
    while (size <= CONFIG_LIMIT) {
        if (!ready(STDIN_FILENO, POLLIN, deadline))
            return NO_TIME;
        ssize_t got = read(STDIN_FILENO, config + size, sizeof config - size);
        if (got == 0)
            return (ssize_t)size;
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return -1;
        if (got > 0)
            size += (size_t)got;
    }
    errno = E2BIG;
    return -1;
}

/* Errors are told in the configuration's version, where that looks like one. */
static void choose_version(void) {
    size_t size = found_version.size;
    if (!found_version.there)
        strcpy(version, "0.4.0");
    else if (found_version.string && size > 0 && size < sizeof version) {
        for (size_t at = 0; at < size; at++) {
            char each = found_version.start[at];
            if (!((each >= '0' && each <= '9') || ((each | 0x20) >= 'a' && (each | 0x20) <= 'z') || each == '.' ||
                  each == '-' || each == '+'))
                return;
        }
        memcpy(version, found_version.start, size);
        version[size] = '\0';
    }
}

/* The path of the agent's socket; what is wrong with it, or NULL. */
static const char *choose_socket(struct sockaddr_un *address) {
    const char *path = DEFAULT_SOCKET;
    size_t size = strlen(path);
    if (found_socket.there) {
        path = found_socket.start;
        size = found_socket.size;
        if (!found_socket.string || size == 0 || *path != '/' || memchr(path, '\\', size) != NULL)
            return "socket: expected an absolute path";
    }
    if (size >= sizeof address->sun_path)
        return "socket: a path of at most 107 bytes, which is what a Unix socket may have";
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, size);
    address->sun_path[size] = '\0';
    return NULL;
}

/* The line for the agent: the variables that are set, and the configuration as it came. */
static char *request(size_t config_size, size_t *size) {
    char *data = NULL;
    FILE *out = open_memstream(&data, size);
    bool first = true;
    if (out == NULL)
        return NULL;
    fputs("{\"env\": {", out);
    for (size_t each = 0; each < sizeof variables / sizeof *variables; each++) {
        const char *text = getenv(variables[each]);
        if (text == NULL)
            continue;
        fprintf(out, "%s\"%s\": ", first ? "" : ", ", variables[each]);
        put_string(out, text);
        first = false;
    }
    fputs("}, \"config\": ", out);
    /* Line ends are only between the parts of JSON, never in them. */
    for (size_t at = 0; at < config_size; at++)
        putc(config[at] == '\n' || config[at] == '\r' ? ' ' : config[at], out);
    fputs("}\n", out);
    return fclose(out) == 0 ? data : NULL;
}

/* The agent ---------------------------------------------------------------------------------------------------------- */

/* Connect, also where others wait for the agent to take them; -1 with errno. */
static int connect_to(const struct sockaddr_un *address, long deadline) {
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    while (agent >= 0 && connect(agent, (const struct sockaddr *)address, sizeof *address) != 0) {
        if ((errno != EAGAIN && errno != EINTR) || now() >= deadline) {
            int reason = errno == EAGAIN ? ETIMEDOUT : errno;
            close(agent);
            errno = reason;
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return agent;
}

/* Send the request and read the answer to its end; the answer's size, -1 with errno. */
static ssize_t converse(int agent, const char *data, size_t size, long deadline) {
    size_t got = 0;
    while (size > 0) {
        if (!ready(agent, POLLOUT, deadline)) {
            errno = ETIMEDOUT;
            return -1;
        }
        ssize_t sent = send(agent, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    while (got < sizeof answer - 1) {
        if (!ready(agent, POLLIN, deadline)) {
            errno = ETIMEDOUT;
            return -1;
        }
        ssize_t read = recv(agent, answer + got, sizeof answer - 1 - got, 0);
        if (read == 0) {
            answer[got] = '\0';
            return (ssize_t)got;
        }
        if (read < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (read > 0)
            got += (size_t)read;
    }
    errno = EMSGSIZE;
    return -1;
}

/* Pass the agent's answer on; the exit status, -1 where it is not whole. */
static int pass_on(size_t size) {
    char *rest = NULL;
    if (answer[0] != '0' && answer[0] != '1')
        return -1;
    if (answer[1] != ' ' || answer[2] < '0' || answer[2] > '9')
        return -1;
    unsigned long length = strtoul(answer + 2, &rest, 10);
    if (*rest != '\n' || length != size - (size_t)(rest + 1 - answer))
        return -1;
    if (!write_all(rest + 1, length))
        return 1;
    return answer[0] - '0';
}

int main(void) {
    long begun = now();
    const char *command = getenv("CNI_COMMAND");
    struct sockaddr_un address = {0};

    signal(SIGPIPE, SIG_IGN);
    if (command == NULL || *command == '\0') {
        fputs("signalbox-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND set\n", stderr);
        return fail(INVALID_ENVIRONMENT, "CNI_COMMAND is not set");
    }
    for (size_t each = 0; each < sizeof variables / sizeof *variables; each++) {
        const char *text = getenv(variables[each]);
        if (text != NULL && strlen(text) > VARIABLE_LIMIT) {
            snprintf(message, sizeof message, "%s is longer than %u bytes", variables[each], VARIABLE_LIMIT);
            return fail(INVALID_ENVIRONMENT, message);
        }
    }

    ssize_t size = read_config(begun + INPUT_WAIT);
    if (size == NO_TIME)
        return fail(IO_FAILURE, "standard input: the network configuration doesn't come to an end");
    if (size < 0 && errno == E2BIG)
        return fail(DECODE, "the network configuration is longer than 1 MiB");
    if (size < 0) {
        snprintf(message, sizeof message, "standard input: %s", strerror(errno));
        return fail(IO_FAILURE, message);
    }
    if (size == 0 && strcmp(command, "VERSION") == 0)
        size = (ssize_t)strlen(strcpy(config, "{}"));
    const char *wrong = not_an_object(config, (size_t)size);
    if (wrong != NULL) {
        snprintf(message, sizeof message, "the network configuration is not a JSON object: see byte %zu of %zd",
                 (size_t)(wrong - config), size);
        return fail(DECODE, message);
    }
    choose_version();
    if (strcmp(command, "VERSION") == 0) {
        int length = snprintf(message, sizeof message,
                              "{\"cniVersion\": \"%s\", \"supportedVersions\": [\"0.4.0\", \"1.0.0\", \"1.1.0\"]}", version);
        return write_all(message, (size_t)length) ? 0 : 1;
    }
    const char *problem = choose_socket(&address);
    if (problem != NULL)
        return fail(INVALID_CONFIG, problem);

    size_t length = 0;
    char *line = request((size_t)size, &length);
    if (line == NULL)
        return fail(IO_FAILURE, "out of memory");
    const char *reason = NULL;
    int status = -1, agent = connect_to(&address, begun + WHOLE_WAIT);
    if (agent < 0)
        reason = strerror(errno);
    else {
        ssize_t got = converse(agent, line, length, begun + WHOLE_WAIT);
        if (got < 0)
            reason = strerror(errno);
        else if ((status = pass_on((size_t)got)) < 0)
            reason = got == 0 ? "it hung up without an answer" : "it hung up in the middle of its answer";
    }
    if (reason == NULL)
        return status;
    snprintf(message, sizeof message, "the node agent at %s doesn't answer: %s", address.sun_path, reason);
    return fail(strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_LATER, message);
}
