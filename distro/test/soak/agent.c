// A daemon in little: what soak tests supervise and kill.
//
//   agent SOCKET        answers "ok" on the abstract unix socket @SOCKET until it is killed;
//                       SIGTERM ends it with code 15, SIGUSR1 with 17, SIGUSR2 with 18
//   agent exit CODE     says that it dies, and exits
//
// Each start leaves an orphan that ends a few milliseconds later, for PID 1 to reap.
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) { _exit(signal == SIGTERM ? 15 : signal == SIGUSR1 ? 17 : 18); }

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "exit") == 0) {
    fprintf(stderr, "agent: there is no reason to live, exiting with %s\n", argv[2]);
    return atoi(argv[2]);
  }
  if (argc != 2) return 2;
  signal(SIGTERM, leave);
  signal(SIGUSR1, leave);
  signal(SIGUSR2, leave);
  // The parent of the orphan: ends at once, and is waited for here.
  pid_t middle = fork();
  if (middle == 0) {
    if (fork() == 0) {
      usleep(3000);
      _exit(7);
    }
    _exit(0);
  }
  waitpid(middle, NULL, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(argv[1]);
  if (length > sizeof address.sun_path - 1) return 3;
  memcpy(address.sun_path + 1, argv[1], length);
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(server, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + length) != 0) {
    perror("agent: bind");
    return 4;
  }
  listen(server, 16);
  printf("agent: serving\n");
  fflush(stdout);
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    int client = accept(server, NULL, NULL);
    if (client < 0) continue;
    if (write(client, "ok", 2) != 2) perror("agent: write");
    close(client);
  }
}
