"""
Local stand-ins for what runs elsewhere in production: PostgreSQL, AWS Lambda, an HTTP endpoint.

Each is the real thing as far as it goes: PostgreSQL is a server from a wheel, a function runs in a process of its own
under the runtime client that AWS ships (`awslambdaric`) behind the Invoke API that the AWS SDKs speak, the receiver
verifies signatures with the reference library. All of them listen on the loopback interface, leave nothing behind, and
die with the process that started them. Nothing else in the package imports this room; `dev` and `demo` do, and tests.
"""
