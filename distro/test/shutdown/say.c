// say SOCKET BYTE: sends one byte to a unix stream socket and waits until the
// other side closes or two seconds have gone, as a client of the original does.
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc != 3 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, argv[1]);
  const unsigned char byte = (unsigned char)strtoul(argv[2], NULL, 0);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 || write(fd, &byte, 1) != 1) {
    perror(argv[1]);
    return 1;
  }
  struct pollfd poller = {.fd = fd, .events = POLLRDHUP};
  poll(&poller, 1, 2000);
  return 0;
}
